"""What is left in the workdir of a step that was not finite: its numbers and its batch."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import jax
import numpy as np

from retinanet_jax.augment import as_seen
from retinanet_jax.config import Config
from retinanet_jax.data.batch import Batch, DroppedBoxes
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.loop import DivergenceError, make_batches
from retinanet_jax.visualize import draw_boxes
from retinanet_jax.workdir import write_whole

COLUMNS = 4
CELL = 480  # pixels


@contextlib.contextmanager
def reporting_divergence(dataset: Dataset, config: Config, workdir: Path) -> Iterator[None]:
    """Writes divergence/step_N/ in the workdir before a DivergenceError leaves.

    report.json has the step, the loss parts, the learning rate, the norms of the gradients by
    module and the ids of the images; batch.png shows the batch with its boxes as the network got
    it.
    """
    try:
        yield
    except DivergenceError as error:
        if jax.process_index() > 0:
            raise
        folder = workdir / "divergence" / f"step_{error.step:06d}"
        report = {
            "step": error.step,
            # JSON has no NaN.
            "values": {k: v if np.isfinite(v) else str(v) for k, v in error.values.items()},
            "images": error.images,
        }
        write_whole(folder / "report.json", json.dumps(report, indent=2))
        # A batch is a function of its number: it is made again, not kept.
        unsaid = DroppedBoxes(warn=False)
        host = make_batches(dataset, config, config.pipeline, unsaid)[error.step - 1]
        picture = draw_batch(as_seen(host.batch), dataset.categories.names)
        if not cv2.imwrite(str(folder / "batch.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{folder / 'batch.png'}: the picture could not be written") from error
        raise


def draw_batch(batch: Batch, names: tuple[str, ...]) -> np.ndarray:
    """One RGB picture [h w 3] of the images of a batch and their boxes, four in a row."""
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
