"""Random access to batches, and a stream of them prefetched by threads."""

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import cv2

from retinanet_jax.data.pipeline.batch import DroppedBoxes, Example, HostBatch, fill_row
from retinanet_jax.data.pipeline.canvas import PipelineConfig
from retinanet_jax.data.pipeline.order import NO_EXAMPLE, Plan, Source
from retinanet_jax.data.pipeline.read_ahead import read_ahead
from retinanet_jax.runtime.cores import available_cores

Read = Callable[[int], Example]  # index -> the example as it is stored
# read, index, repeat, step -> what goes into the batch
Prepare = Callable[[Read, int, int, int], Example]
Begin = Callable[[tuple[int, int], int], HostBatch]  # canvas, rows -> a batch of padding


class ExampleError(RuntimeError):
    """An example could not be read or transformed; names the dataset, the index and the id."""


@runtime_checkable
class HasSource(Protocol):
    """A dataset, as far as the pipeline uses it."""

    source: Source
    name: str


class Batches:
    """Random access to the batches of a dataset: the rows of this process in each.

    `batches[step]` makes one batch. `batches.iterate(step)` gives the same ones from `step` on,
    made ahead by threads; so does a for loop, from the first. Either raises ExampleError where an
    example cannot be read or transformed.

    Args:
      dataset: dataset of the examples.
      order: function from a step to the Plan of the global batch.
      prepare: makes the example (index, repeat) of a step with a function that reads any by its
        index.
      begin: makes a batch of padding, whose rows are then filled; see padding_batch.
      length: number of batches.
      batch_size: rows of the global batch.
      settings: threads, prefetch, and which of the processes this is.
      dropped: counts the boxes that max_boxes leaves out.
    """

    def __init__(
        self,
        dataset: HasSource,
        order: Callable[[int], Plan],
        prepare: Prepare,
        begin: Begin,
        length: int,
        batch_size: int,
        settings: PipelineConfig,
        dropped: DroppedBoxes,
    ):
        self._dataset, self._order, self._prepare = dataset, order, prepare
        self._begin_padding, self._length, self._settings = begin, length, settings
        self._rows = batch_size // settings.process_count
        self._dropped = dropped
        cv2.setNumThreads(0)  # the threads are ours: one example each

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> HostBatch:
        if not 0 <= step < self._length:
            raise IndexError(f"no batch {step} of {self._length}")
        host = self.padding(step)
        for row in range(self._rows):
            self._fill((host, step, row))
        return host

    def __iter__(self) -> Iterator[HostBatch]:
        return self.iterate()

    def iterate(self, start_step: int = 0) -> Iterator[HostBatch]:
        """Yields the batches from `start_step` on; those before it are never made."""
        if start_step < 0:
            raise ValueError(f"start_step: {start_step} must be at least 0")
        # Rows, not batches, are the units of work: the first batch is ready sooner, and not many
        # more than `prefetch` batches are ever held, however many threads there are.
        threads, ahead = thread_count(self._settings), self._settings.prefetch * self._rows
        filled = read_ahead(
            self._rows_from(start_step), self._fill, threads=threads, ahead=max(threads, ahead)
        )
        return itertools.islice(filled, self._rows - 1, None, self._rows)  # with its last row

    def example(self, index: int, repeat: int, step: int = 0) -> Example:
        """Returns the example of image `index` at a step, after it has come `repeat` times.

        Raises:
          ExampleError: it cannot be read or transformed.
        """
        try:
            return self._prepare(self._read, index, repeat, step)
        except ExampleError:
            raise
        except Exception as error:
            raise self._failure(index, error) from error

    def describe(self, step: int) -> str:
        """Returns the images of the global batch `step`, ids by dataset, for messages."""
        parts: dict[str, list[str]] = {}
        for index in self._order(step).indices:
            if index != NO_EXAMPLE:
                parts.setdefault(self._part(index), []).append(self._image_id(index))
        return "; ".join(f"{part}: {', '.join(ids)}" for part, ids in parts.items())

    def padding(self, step: int) -> HostBatch:
        """Returns the batch of a step without its images."""
        return self._begin_padding(self._order(step).canvas, self._rows)

    def _rows_from(self, start_step: int) -> Iterator[tuple[HostBatch, int, int]]:
        """The units of work: a batch of padding with its step, and each of its rows."""
        for step in range(start_step, self._length):
            host = self.padding(step)
            for row in range(self._rows):
                yield host, step, row

    def _fill(self, unit: tuple[HostBatch, int, int]) -> HostBatch:
        host, step, row = unit
        plan, place = self._order(step), self._settings.process_index * self._rows + row
        index = plan.indices[place]
        if index != NO_EXAMPLE:
            fill_row(host, row, self.example(index, plan.repeats[place], step), self._dropped)
        return host

    def _read(self, index: int) -> Example:
        # The error names the image that was read: a mosaic reads three more.
        try:
            example = self._dataset.source[index]
            size = example.image.shape[:2]
            expected = tuple(self._dataset.source.image_size(index))
            if size != expected:
                what = f"the image is {size} (height, width), but its source states {expected}"
                raise ValueError(what)
        except Exception as error:
            raise self._failure(index, error) from error
        return example

    def _failure(self, index: int, error: Exception) -> ExampleError:
        return ExampleError(
            f"dataset {self._part(index)}, example {index} (image id {self._image_id(index)}): "
            f"{type(error).__name__}: {error}"
        )

    # Both without reading the example, which may be what failed.
    def _image_id(self, index: int) -> str:
        image_id = getattr(self._dataset.source, "image_id", None)
        return str(image_id(index)) if image_id else "unknown"

    def _part(self, index: int) -> str:
        part_name = getattr(self._dataset.source, "part_name", None)
        return part_name(index) if part_name else self._dataset.name


def thread_count(settings: PipelineConfig) -> int:
    """Returns how many threads make examples."""
    return settings.num_threads or available_cores()
