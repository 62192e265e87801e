"""Reports on one step, such as a step that diverged: its metrics and its batch."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.pipeline.batch import Batch, DroppedBoxes
from retinanet_jax.inference.drawing import draw_boxes
from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.training.device_augmentation import as_seen
from retinanet_jax.training.loop import make_batches
from retinanet_jax.training.meter import DivergenceError
from retinanet_jax.training.optimizer import published_learning_rate, scaled_learning_rate

COLUMNS = 4
CELL = 480  # pixels


@contextlib.contextmanager
def reporting_divergence(dataset: Dataset, config: Config, workdir: Path) -> Iterator[None]:
    """Writes divergence/step_N/ in the workdir on a DivergenceError, and raises it again.

    See `write_step_report`. `replay_step` adds the loss of each pyramid level and image.
    """
    try:
        yield
    except DivergenceError as error:
        if jax.process_index() > 0:
            raise
        folder = workdir / "divergence" / f"step_{error.step:06d}"
        report = describe_step(error.step, error.values, error.images, config)
        # A batch is a function of its index: it is made again.
        dropped = DroppedBoxes(warn=False)
        host = make_batches(dataset, config, config.pipeline, dropped)[error.step - 1]
        write_step_report(folder, report, host.batch, dataset.categories.names)
        raise


def describe_step(step: int, values: dict[str, float], images: str, config: Config) -> dict:
    """Returns the part of a step's report that needs no state: metrics, learning rates, image ids.

    Args:
        step: number of the step, from 1.
        values: the metrics from `train_step`.
        images: the image ids of the batch, by dataset.
        config: configuration of the run. The report compares the learning rate with the highest
            rate of the run, and with that of the published baselines for this batch size.
    """
    optimizer, batch_size = config.optimizer, config.train.batch_size
    rates = {
        "now": values["learning_rate"],
        "highest of this run": scaled_learning_rate(optimizer, batch_size),
        "published, for this batch size": published_learning_rate(optimizer.name, batch_size),
    }
    return {"step": step, "values": values, "learning_rate": rates, "images": images}


def write_step_report(folder: Path, report: dict, batch: Batch, names: tuple[str, ...]) -> None:
    """Writes report.json, and batch.png: images and boxes as the network sees them.

    Args:
        folder: folder to write to; created if missing.
        report: written as JSON; numbers that are not finite become strings.
        batch: batch of numpy arrays from the pipeline.
        names: names of the classes.
    """
    write_whole(folder / "report.json", json.dumps(_without_nan(report), indent=2))
    image = draw_batch(as_seen(batch), names)
    if not cv2.imwrite(str(folder / "batch.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{folder / 'batch.png'}: the image could not be written")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def draw_batch(batch: Batch, names: tuple[str, ...]) -> np.ndarray:
    """Draws the images of a batch with their boxes as one RGB image [h w 3], four per row."""
    cells = []
    for row in np.flatnonzero(batch.valid):
        height, width = np.ceil(batch.image_sizes[row]).astype(int)
        image = np.nan_to_num(batch.images[row, :height, :width]).clip(0, 255).astype(np.uint8)
        boxes, labels, crowd = batch.gt_boxes[row], batch.gt_labels[row], batch.gt_crowd[row]
        drawn = draw_boxes(image, boxes, labels, names, crowd=crowd, long_side=CELL)
        rest = ((0, CELL - drawn.shape[0]), (0, CELL - drawn.shape[1]), (0, 0))
        cells.append(np.pad(drawn, rest, constant_values=255))
    cells += [np.full((CELL, CELL, 3), 255, np.uint8)] * (-len(cells) % COLUMNS)
    lines = [np.concatenate(cells[i : i + COLUMNS], 1) for i in range(0, len(cells), COLUMNS)]
    return np.concatenate(lines)
