"""From a data set to batches of fixed shape: which examples, and what is done to each.

The step is the whole state of the training data: an example is a pure function of (seed, epoch,
index) and a batch of (seed, step), so that resuming is a number and several processes cut their
rows out of the same global batch.
"""

import functools
import sys

import numpy as np

from retinanet_jax.data import transforms
from retinanet_jax.data.batch import DroppedBoxes, Example
from retinanet_jax.data.canvas import (
    PipelineConfig,
    canvas_for,
    canvases,
    eval_size,
    jitter_bound,
)
from retinanet_jax.data.order import TrainOrder, eval_order
from retinanet_jax.data.stream import Batches, ExampleError, HasSource, Read

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
    dropped: DroppedBoxes | None = None,
) -> Batches:
    """Augmented batches without end: `batches[step]` is a pure function of (seed, step).

    Every epoch is shuffled anew and has every image exactly once; the batch in which one epoch
    ends and the next begins holds images of both.

    Args:
      dataset: see HasSource.
      batch_size: rows of the global batch; this process makes its share, in process order.
      seed: 0 or more.
      settings: all of it is used.
      dropped: where boxes that max_boxes leaves out are counted.

    Raises:
      ValueError: no images, a negative seed, or rows that processes cannot share evenly.
    """
    if len(dataset.source) == 0:
        raise ValueError(f"train_batches: data set {dataset.name} has no images")
    if seed < 0:
        raise ValueError(f"train_batches: seed {seed} is negative")
    _check_rows(batch_size, settings)
    order = TrainOrder(dataset.source, batch_size, seed, settings)
    prepare = functools.partial(_augmented, seed=seed, settings=settings)
    steps = sys.maxsize // batch_size
    return Batches(dataset, order, prepare, steps, batch_size, settings, dropped or DroppedBoxes())


def eval_batches(dataset: HasSource, *, batch_size: int, settings: PipelineConfig) -> Batches:
    """Every image once, resized only; the last batch is filled up with rows that are not `valid`.

    In the data set's order; with a few canvases, landscape pictures first and portrait last, so
    that nearly all batches have a small canvas. Of `settings`, flip and scale_jitter are not used.
    Every process gets the same number of batches on the same canvases.

    Raises: as train_batches; of a data set without images there are no batches.
    """
    _check_rows(batch_size, settings)
    plans = eval_order(dataset.source, batch_size, settings)
    prepare = functools.partial(_resized, settings=settings)
    # Told, not seen from the examples: a process may get batches of padding alone.
    dtype = np.float32 if settings.eval_resizing == "torchvision" else np.uint8
    # Detections are scored against the annotations: that a batch holds fewer boxes costs nothing.
    unsaid, order = DroppedBoxes(warn=False), plans.__getitem__
    return Batches(dataset, order, prepare, len(plans), batch_size, settings, unsaid, dtype)


def _augmented(
    read: Read, index: int, epoch: int, *, seed: int, settings: PipelineConfig
) -> Example:
    example = read(index)
    return transforms.augment(
        example,
        transforms.draw((seed, _EXAMPLES_KEY, epoch, index)),
        min_side=settings.min_side,
        max_side=settings.max_side,
        bound=jitter_bound(example.image.shape[:2], settings),
        flip_half=settings.flip,
        scale_jitter=settings.scale_jitter,
    )


def _resized(read: Read, index: int, epoch: int, *, settings: PipelineConfig) -> Example:
    return fit(read(index), settings)


def fit(example: Example, settings: PipelineConfig) -> Example:
    """The example resized as for evaluation: see transforms.fitted_size and transforms.resize."""
    size = eval_size(example.image.shape[:2], settings)
    return transforms.resize(example, size, settings.eval_resizing)


def _check_rows(batch_size: int, settings: PipelineConfig) -> None:
    count = settings.process_count
    if batch_size < 1 or batch_size % count:
        raise ValueError(
            f"batch_size: {batch_size} is not a positive multiple of {count} processes"
        )
