"""Streams images through a compiled function: reads ahead, batches by canvas, keeps the order.

Only a window of the images is in memory: the images being read, those in incomplete batches, and
those in batches on the device.
"""

import contextlib
import dataclasses
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from retinanet_jax.core.postprocess import Detections, PostprocessConfig
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import ImageLike, read_image
from retinanet_jax.data.pipeline.batch import Batch, Example, collate, without_objects
from retinanet_jax.data.pipeline.canvas import PipelineConfig, canvas_for, eval_canvas_for
from retinanet_jax.data.pipeline.prefetch import thread_count
from retinanet_jax.data.pipeline.read_ahead import read_ahead
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.results import ImageDetections
from retinanet_jax.inference.test_time_augmentation import View, map_back, merge, scaled, see

# Batches that wait on the device beside the running one, so that it never waits for the host.
QUEUED = 2
# An incomplete batch is sent once its first image has waited for this many batches of others. A
# single portrait among landscapes delays the results after it no longer than that.
PATIENCE = 4


@dataclasses.dataclass
class Seen:
    """An image in the stream, and its detections once they are ready.

    Attributes:
      key: the caller's name for it.
      image: the image as it was passed.
      size: (height, width) of the image in pixels.
      found: detections by view, in pixels of the image, with masks; None: not ready yet.
      error: why the image could not be read; `found` is empty then.
    """

    key: Any
    image: ImageLike
    size: tuple[int, int] = (0, 0)
    found: list[Detections | None] = dataclasses.field(default_factory=list)
    error: DataError | None = None

    @property
    def done(self) -> bool:
        return all(found is not None for found in self.found)


SeenStream = Generator[Seen, None, None]
"""An iterator over images in order; closing it ends the threads that read ahead."""
OnError = Callable[[Any, DataError], object]
"""Called with the key of an image that cannot be read, and the error."""


class _Row(NamedTuple):
    """One view of an image, a row of a batch to be."""

    seen: Seen
    view: int
    example: Example
    number: int  # of the image in the stream


class Stream:
    """Runs a network on a stream of images; each instance can be used once.

    Args:
      launch: function that starts the computation of a batch and returns its detections without
        waiting for them.
      views: views of each image.
      settings: settings of the pipeline; see PipelineConfig.
      rows: number of rows in a batch. Incomplete batches are padded, so nothing recompiles.
    """

    def __init__(
        self,
        launch: Callable[[Batch], Detections],
        views: tuple[View, ...],
        settings: PipelineConfig,
        rows: int,
    ):
        self._launch, self._views, self._rows = launch, views, rows
        self._settings = [scaled(settings, view) for view in views]
        self._threads = thread_count(settings)
        self._filling: dict[Any, list[_Row]] = defaultdict(list)
        self._running: deque[tuple[list[_Row], Detections]] = deque()

    def run(self, items: Iterable[tuple[Any, ImageLike]]) -> SeenStream:
        """Yields the results of each (key, image), in order, once all its views are done."""
        waiting: deque[Seen] = deque()
        ahead = 2 * max(self._threads, self._rows)
        reading = read_ahead(items, self._read, threads=self._threads, ahead=ahead)
        with contextlib.closing(reading):
            for number, (seen, examples) in enumerate(reading):
                waiting.append(seen)
                for view, example in enumerate(examples):
                    self._add(_Row(seen, view, example, number))
                self._send_late(number)
                self._fetch(QUEUED)
                yield from _done(waiting)
        for kind in list(self._filling):
            self._send(kind)
        while self._running:
            self._fetch(len(self._running) - 1)
            yield from _done(waiting)
        yield from _done(waiting)

    def _read(self, item: tuple[Any, ImageLike]) -> tuple[Seen, list[Example]]:
        """In a thread: the image as each view shows it."""
        key, image = item
        try:
            if isinstance(image, DataError):  # the end of a damaged video
                raise image
            example = without_objects(read_image(image))
        except DataError as error:
            return Seen(key, image, error=error), []
        size, count = example.image.shape[:2], len(self._views)
        pairs = zip(self._views, self._settings, strict=True)
        return Seen(key, image, size, [None] * count), [see(example, *pair) for pair in pairs]

    def _add(self, row: _Row) -> None:
        """Adds a row to the batch of its view and canvas; a full batch is sent to the device."""
        settings, size = self._settings[row.view], row.example.image.shape[:2]
        canvas = canvas_for([size], settings) if settings.eval_canvas != "tight" else None
        kind = row.view, canvas
        self._filling[kind].append(row)
        if len(self._filling[kind]) == self._rows:
            self._send(kind)

    def _send_late(self, number: int) -> None:
        oldest = number - PATIENCE * self._rows
        for kind in [kind for kind, rows in self._filling.items() if rows[0].number <= oldest]:
            self._send(kind)

    def _send(self, kind: Any) -> None:
        rows = self._filling.pop(kind)
        examples = [row.example for row in rows]
        settings = self._settings[kind[0]]
        sizes = np.array([example.image.shape[:2] for example in examples])
        canvas = eval_canvas_for(sizes, settings)
        dtype = examples[0].image.dtype.type
        host = collate(examples, canvas, settings.max_boxes, self._rows, dtype=dtype)
        rows = [row._replace(example=None) for row in rows]  # its pixels are in the batch
        self._running.append((rows, self._launch(host.batch)))

    def _fetch(self, most: int) -> None:
        """Takes finished batches from the device, and waits until at most `most` are left."""
        running = self._running
        while running and (len(running) > most or running[0][1].valid.is_ready()):
            rows, found = running.popleft()
            found = jax.device_get(found)
            for place, row in enumerate(rows):
                one = Detections(*(part[place] for part in found))
                row.seen.found[row.view] = map_back(one, self._views[row.view], row.seen.size[1])


def _done(waiting: deque[Seen]) -> Iterator[Seen]:
    while waiting and waiting[0].done:
        yield waiting.popleft()


def report_errors(stream: SeenStream, on_error: OnError) -> SeenStream:
    """Yields the readable images of a stream; calls `on_error` with key and error of the others."""
    with contextlib.closing(stream):
        for seen in stream:
            if seen.error is None:
                yield seen
            else:
                on_error(seen.key, seen.error)


def to_result(
    seen: Seen, categories: Categories, config: PostprocessConfig, how: str = "nms"
) -> ImageDetections:
    """Returns the detections of an image, merged if it has several views; see `merge`.

    Raises:
      DataError: the image could not be read.
    """
    if seen.error is not None:
        error, seen.error = seen.error, None
        try:
            raise error
        finally:
            del error  # its traceback holds this frame, and with it the images of the call
    found = seen.found[0] if len(seen.found) == 1 else merge(seen.found, config, how)
    boxes, scores, labels, valid = (np.asarray(part) for part in found)
    parts = boxes[valid], scores[valid], labels[valid]
    return ImageDetections(*parts, categories, seen.image, seen.size)
