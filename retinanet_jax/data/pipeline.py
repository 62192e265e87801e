"""From a data set to batches of fixed shape, in threads of this process.

The step is the whole state of the training stream: an example is a pure function of (seed, epoch,
index) and a batch of (seed, step), so that resuming is a number and several processes cut their
rows out of the same global batch.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import cv2
import grain
import numpy as np

from retinanet_jax.data import transforms
from retinanet_jax.data.augmentation import AugmentationConfig, augment, with_largest_scale
from retinanet_jax.data.batch import DroppedBoxes, Example, HostBatch, collate
from retinanet_jax.data.canvas import (
    PipelineConfig,
    canvas_for,
    canvases,
    eval_size,
)
from retinanet_jax.data.order import NO_EXAMPLE, Plan, Source, TrainOrder, eval_order

__all__ = [
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


Read = Callable[[int], Example]


class ExampleError(RuntimeError):
    """An example could not be read or transformed; names the data set, the index and the id."""


@runtime_checkable
class HasSource(Protocol):
    """What of a data set the pipeline needs."""

    source: Source
    name: str


def train_batches(
    dataset: HasSource,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    settings: PipelineConfig,
    augmentation: AugmentationConfig,
) -> Iterator[HostBatch]:
    """Endless augmented batches from `start_step` on; each is a pure function of (seed, step).

    Every epoch is shuffled anew and has every image exactly once; the batch in which one epoch
    ends and the next begins holds images of both.

    Args:
      dataset: see HasSource.
      batch_size: rows of the global batch; this process makes its share, in process order.
      seed: 0 or more.
      start_step: number of the first batch: those before it are never made.
      settings: all of it is used but eval_resizing and eval_canvas.
      augmentation: its flips and colours are drawn here, for augment.augment_on_device to do.

    Raises:
      ValueError: no images, a negative seed, or rows that processes cannot share evenly.
      ExampleError: (from the iterator) an example failed; it names the image.
    """
    _check_rows(batch_size, settings)
    if len(dataset.source) == 0:
        raise ValueError(f"train_batches: data set {dataset.name} has no images")
    if seed < 0 or start_step < 0:
        raise ValueError(f"train_batches: seed {seed} or start_step {start_step} is negative")
    settings = with_largest_scale(settings, augmentation)
    order = TrainOrder(dataset.source, batch_size, seed, settings)

    def prepare(read: Read, index: int, epoch: int) -> Example:
        key = (seed, _EXAMPLES_KEY, epoch, index)
        return augment(read, index, len(dataset.source), key, settings, augmentation)

    steps = sys.maxsize // batch_size
    return _batches(dataset, order, prepare, batch_size, range(start_step, steps), settings)


def eval_batches(
    dataset: HasSource, *, batch_size: int, settings: PipelineConfig
) -> Iterator[HostBatch]:
    """Every image once, resized only; the last batch is filled up with rows that are not `valid`.

    In the data set's order; with a few canvases, landscape pictures first and portrait last, so
    that nearly all batches have a small canvas. Every process gets the same number of batches on
    the same canvases.

    Raises: as train_batches; a data set without images gives no batch.
    """
    _check_rows(batch_size, settings)
    order = eval_order(dataset.source, batch_size, settings)

    def prepare(read: Read, index: int, epoch: int) -> Example:
        return fit(read(index), settings)

    steps = range(len(order))
    # Told, not seen from the examples: a process may get batches of padding alone.
    dtype = np.float32 if settings.eval_resizing == "torchvision" else np.uint8
    return _batches(dataset, order.__getitem__, prepare, batch_size, steps, settings, dtype)


def fit(example: Example, settings: PipelineConfig) -> Example:
    """The example resized as for evaluation: see transforms.fitted_size and transforms.resize."""
    size = eval_size(example.image.shape[:2], settings)
    return transforms.resize(example, size, settings.eval_resizing)


class _Rows:
    """This process's rows of all batches in one sequence: position -> (canvas, example or None)."""

    def __init__(
        self,
        dataset: HasSource,
        order: Callable[[int], Plan],
        prepare: Callable[[Read, int, int], Example],
        steps: range,
        rows: range,
    ):
        self._dataset, self._order, self._prepare = dataset, order, prepare
        self._steps, self._rows = steps, rows

    def __len__(self) -> int:
        return len(self._steps) * len(self._rows)

    def __getitem__(self, position: int) -> tuple[tuple[int, int], Example | None]:
        step, row = divmod(position, len(self._rows))
        plan, row = self._order(self._steps[step]), self._rows[row]
        index = plan.indices[row]
        if index == NO_EXAMPLE:
            return plan.canvas, None
        try:
            return plan.canvas, self._prepare(self._read, index, plan.epochs[row])
        except ExampleError:
            raise
        except Exception as error:
            raise self._complaint(index, error) from error

    def _read(self, index: int) -> Example:
        # It names what it read: a mosaic has three pictures beside its own.
        try:
            example = self._dataset.source[index]
            size, told = example.image.shape[:2], tuple(self._dataset.source.image_size(index))
            if size != told:
                what = f"the picture is {size} (height, width), its annotation says {told}"
                raise ValueError(what)
        except Exception as error:
            raise self._complaint(index, error) from error
        return example

    def _complaint(self, index: int, error: Exception) -> ExampleError:
        # Sources may tell the id without reading the example; the one that failed cannot be asked.
        tell = getattr(self._dataset.source, "image_id", None)
        image = f"image id {tell(index)}" if tell else "image id not told by the source"
        problem = f"{type(error).__name__}: {error}"
        return ExampleError(f"data set {self._dataset.name}, example {index} ({image}): {problem}")


def _check_rows(batch_size: int, settings: PipelineConfig) -> None:
    count = settings.process_count
    if batch_size < 1 or batch_size % count:
        raise ValueError(
            f"batch_size: {batch_size} is not a positive multiple of {count} processes"
        )


def _batches(
    dataset: HasSource,
    order: Callable[[int], Plan],
    prepare: Callable[[Read, int, int], Example],
    batch_size: int,
    steps: range,
    settings: PipelineConfig,
    dtype: type = np.uint8,
) -> Iterator[HostBatch]:
    rows = batch_size // settings.process_count
    first_row = settings.process_index * rows
    cv2.setNumThreads(0)  # the threads are ours: one example each
    threads = settings.num_threads or _cores()
    # Examples, not batches, are the units of work: the first batch is ready sooner, and no more
    # than `prefetch` batches are ever held.
    reading = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(threads, settings.prefetch * rows)
    )
    examples = _Rows(dataset, order, prepare, steps, range(first_row, first_row + rows))
    join = functools.partial(_join, settings=settings, dropped=DroppedBoxes(), dtype=dtype)
    stream = grain.MapDataset.source(examples).to_iter_dataset(reading)
    return iter(stream.batch(rows, batch_fn=join))


def _cores() -> int:
    # Where the system can tell: the cores of this process, not those of the whole machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _join(
    rows: list[tuple[tuple[int, int], Example | None]],
    *,
    settings: PipelineConfig,
    dropped: DroppedBoxes,
    dtype: type,
) -> HostBatch:
    canvas = rows[0][0]
    examples = [example for _, example in rows if example is not None]
    return collate(examples, canvas, settings.max_boxes, len(rows), dropped=dropped, dtype=dtype)
