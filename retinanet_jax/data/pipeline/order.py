"""Selects the images of each batch: a pure function of (seed, step).

With a few canvases, images are grouped by orientation.
"""

import functools
import threading
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.pipeline.canvas import (
    PipelineConfig,
    canvas_for,
    eval_canvas_for,
    eval_size,
    fitted_sizes,
    orientations,
)
from retinanet_jax.data.pipeline.epochs import Epochs

# Batches among which images are grouped by orientation. One batch in a window mixes orientations
# and takes the square canvas; the longer the window, the rarer, and the less random the order.
WINDOW_BATCHES = 32

# Keys of the random streams. None is 0: numpy takes (a, b) and (a, b, 0) for the same key.
_ORDER_KEY, _WINDOWS_KEY = 1, 2

NO_EXAMPLE = -1  # an index: the row is padding


@runtime_checkable
class Source(Protocol):
    """Random access to examples; `image_size` gives (height, width) without decoding."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def image_size(self, index: int) -> tuple[int, int]: ...


class Plan(NamedTuple):
    """One global batch: its canvas; for each row the example and how often it has come before.

    If each image appears once per epoch, `repeats` is the epoch.
    """

    canvas: tuple[int, int]
    indices: list[int]
    repeats: list[int]


class TrainOrder:
    """step -> Plan; `epochs` is by default each image once an epoch."""

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        settings: PipelineConfig,
        epochs: Epochs | None = None,
    ):
        self._source, self._batch_size, self._seed = source, batch_size, seed
        self._settings, self._epochs = settings, epochs or Epochs(len(source))
        self._canvas = None
        if settings.train_canvas == "one":
            self._canvas = canvas_for(
                _fitted_sizes(source, np.arange(len(source)), settings), settings
            )
        self._permutation = functools.lru_cache(maxsize=4)(self._shuffled)
        self._window = functools.lru_cache(maxsize=4)(self._plan_window)
        self._lock = threading.Lock()

    def __call__(self, step: int) -> Plan:
        first, stop = self._window_around(step)
        with self._lock:  # else every thread would plan the same window
            return self._window(first, stop)[step - first]

    def _shuffled(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The images of an epoch in random order, and how often each has come before."""
        indices, repeats = self._epochs.images(epoch)
        order = np.random.default_rng((self._seed, _ORDER_KEY, epoch)).permutation(len(indices))
        return indices[order], repeats[order]

    def _window_around(self, step: int) -> tuple[int, int]:
        """The steps [first, stop) whose images are grouped together: all of one epoch.

        A batch with images of two epochs is a window of its own, so that no image passes from one
        epoch to the other.
        """
        rows, epochs = self._batch_size, self._epochs
        epoch = epochs.at(step * rows)
        begin, end = -(-epochs.begin(epoch) // rows), epochs.begin(epoch + 1) // rows
        if not begin <= step < end:
            return step, step + 1
        first = begin + (step - begin) // WINDOW_BATCHES * WINDOW_BATCHES
        return first, min(first + WINDOW_BATCHES, end)

    def _images(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The images at the places [first, stop), and how often each has come before."""
        parts, epoch = [], self._epochs.at(first)
        while (begin := self._epochs.begin(epoch)) < stop:
            part = slice(max(first - begin, 0), stop - begin)
            parts.append([column[part] for column in self._permutation(epoch)])
            epoch += 1
        indices, repeats = (np.concatenate(column) for column in zip(*parts, strict=True))
        return indices, repeats

    def _plan_window(self, first: int, stop: int) -> list[Plan]:
        rows = self._batch_size
        indices, repeats = self._images(first * rows, stop * rows)
        sizes = _fitted_sizes(self._source, indices, self._settings)
        grouped = self._canvas is None
        kinds = orientations(sizes, self._settings) if grouped else np.zeros(len(sizes))
        order = np.argsort(kinds, kind="stable").reshape(-1, rows)
        # Grouped batches come in random order, or the net would see all of one kind in a row.
        order = np.random.default_rng((self._seed, _WINDOWS_KEY, first)).permutation(order)
        return [
            Plan(
                canvas=self._canvas or canvas_for(sizes[batch], self._settings),
                indices=indices[batch].tolist(),
                repeats=repeats[batch].tolist(),
            )
            for batch in order
        ]


def eval_order(source: Source, batch_size: int, settings: PipelineConfig) -> list[Plan]:
    """Returns the batches of `pipeline.eval_batches`: every image once."""
    sizes = [eval_size(source.image_size(index), settings) for index in range(len(source))]
    sizes = np.array(sizes, int).reshape(-1, 2)
    order = np.arange(len(sizes))
    if settings.eval_canvas == "few":
        order = np.argsort(orientations(sizes, settings), kind="stable")
    one = canvas_for(sizes, settings) if settings.eval_canvas == "one" and len(sizes) else None
    plans = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        padding = [NO_EXAMPLE] * (batch_size - len(batch))
        canvas = one or eval_canvas_for(sizes[batch], settings)
        plans.append(Plan(canvas, batch.tolist() + padding, [0] * batch_size))
    return plans


def _fitted_sizes(
    source: Source, indices: np.ndarray, settings: PipelineConfig
) -> Int[np.ndarray, "n 2"]:
    sizes = [source.image_size(int(index)) for index in indices]
    return fitted_sizes(sizes, settings)
