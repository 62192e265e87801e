"""From a dataset to batches of fixed shape: the order of examples and their transforms.

The step is the whole state of the training data: an example is a pure function of (seed, index, how
often the image has come before) and a batch of (seed, step), so that resuming is a number and
several processes cut their rows out of the same global batch.
"""

import math
import sys

import numpy as np

from retinanet_jax.data.pipeline import transforms
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig, with_largest_scale
from retinanet_jax.data.pipeline.batch import DroppedBoxes, Example, HostBatch, padding_batch
from retinanet_jax.data.pipeline.canvas import PipelineConfig, canvas_for, canvases, eval_size
from retinanet_jax.data.pipeline.epochs import RepeatedEpochs
from retinanet_jax.data.pipeline.host_augmentation import augment
from retinanet_jax.data.pipeline.order import TrainOrder, eval_order
from retinanet_jax.data.pipeline.prefetch import Batches, ExampleError, HasSource, Read

__all__ = [
    "Batches",
    "ExampleError",
    "PipelineConfig",
    "canvas_for",
    "canvases",
    "eval_batches",
    "fit",
    "train_batches",
]

# Beside the keys of order.py; the seed and the key are the first numbers of every stream.
_EXAMPLES_KEY = 3


def train_batches(
    dataset: HasSource,
    *,
    batch_size: int,
    seed: int,
    settings: PipelineConfig,
    augmentation: AugmentationConfig,
    total_steps: int | None = None,
    dropped: DroppedBoxes | None = None,
) -> Batches:
    """Returns endless augmented batches: `batches[step]` is a pure function of (seed, step).

    Each epoch has its own order and every image once, or as often as `dataset.repeats` has it; the
    batch in which one epoch ends and the next begins has images of both.

    Args:
      dataset: see HasSource.
      batch_size: rows of the global batch; each process makes its part, in process order.
      seed: seed of the run, at least 0.
      settings: all fields are used except eval_resizing and eval_canvas.
      augmentation: its flips and colours are drawn here, for `augment_on_device` to do.
      total_steps: length of the run, for augmentation.close_mosaic; None: no end.
      dropped: counts the boxes that max_boxes leaves out.

    Raises:
      ValueError: no images, a negative seed, or rows that processes cannot share evenly.
    """
    if len(dataset.source) == 0:
        raise ValueError(f"train_batches: dataset {dataset.name} has no images")
    if seed < 0:
        raise ValueError(f"train_batches: seed {seed} must be at least 0")
    _check_rows(batch_size, settings)
    settings = with_largest_scale(settings, augmentation)
    repeats = getattr(dataset, "repeats", None)
    epochs = None if repeats is None else RepeatedEpochs(repeats, seed)
    order = TrainOrder(dataset.source, batch_size, seed, settings, epochs)

    count, single = len(dataset.source), augmentation.of_single_images()
    epoch = count if repeats is None else repeats.sum()
    closing = math.inf
    if total_steps is not None:
        closing = total_steps - augmentation.close_mosaic * epoch / batch_size

    def prepare(read: Read, index: int, repeat: int, step: int) -> Example:
        key = (seed, _EXAMPLES_KEY, repeat, index)
        config = augmentation if step < closing else single
        return augment(read, index, count, key, settings, config)

    def begin(canvas: tuple[int, int], rows: int) -> HostBatch:
        marks = {"flips": augmentation.flip, "colors": augmentation.changes_colors()}
        return padding_batch(canvas, settings.max_boxes, rows, **marks)

    steps, dropped = sys.maxsize // batch_size, dropped or DroppedBoxes()
    return Batches(dataset, order, prepare, begin, steps, batch_size, settings, dropped)


def eval_batches(
    dataset: HasSource, *, batch_size: int, settings: PipelineConfig, mirrored: bool = False
) -> Batches:
    """Returns batches of every image once, resized only; padding rows are not `valid`.

    With `mirrored`, images and boxes are mirrored left to right after resizing.

    Images are in the dataset's order. With a few canvases, landscape images come first and portrait
    images last, so that nearly all batches have a small canvas. Every process gets the same number
    of batches on the same canvases.

    Raises: as train_batches, but a dataset without images has no batches.
    """
    _check_rows(batch_size, settings)
    plans = eval_order(dataset.source, batch_size, settings)

    def prepare(read: Read, index: int, repeat: int, step: int) -> Example:
        fitted = fit(read(index), settings)
        return transforms.mirror(fitted) if mirrored else fitted

    def begin(canvas: tuple[int, int], rows: int) -> HostBatch:
        dtype = np.float32 if settings.eval_resizing == "torchvision" else np.uint8
        return padding_batch(canvas, settings.max_boxes, rows, dtype=dtype)

    # Detections are scored against the annotations: fewer boxes in a batch change the loss alone.
    dropped, order = DroppedBoxes(warn=False), plans.__getitem__
    return Batches(dataset, order, prepare, begin, len(plans), batch_size, settings, dropped)


def fit(example: Example, settings: PipelineConfig) -> Example:
    """Returns the example resized for evaluation: see transforms.fitted_size and .resize."""
    size = eval_size(example.image.shape[:2], settings)
    return transforms.resize(example, size, settings.eval_resizing)


def _check_rows(batch_size: int, settings: PipelineConfig) -> None:
    count = settings.process_count
    if batch_size < 1 or batch_size % count:
        raise ValueError(
            f"batch_size: {batch_size} must be a positive multiple of {count}, the "
            "number of processes"
        )
