"""Which images make up which batch: a pure function of (seed, step), grouped by orientation."""

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
    """One global batch: its canvas, and for each row the index and the epoch of the example."""

    canvas: tuple[int, int]
    indices: list[int]
    epochs: list[int]


class TrainOrder:
    """step -> Plan."""

    def __init__(self, source: Source, batch_size: int, seed: int, settings: PipelineConfig):
        self._source, self._batch_size, self._seed = source, batch_size, seed
        self._settings = settings
        self._permutation = functools.lru_cache(maxsize=4)(self._shuffled)
        self._window = functools.lru_cache(maxsize=4)(self._plan_window)
        self._lock = threading.Lock()

    def __call__(self, step: int) -> Plan:
        first, stop = self._window_around(step)
        with self._lock:  # else every thread would plan the same window
            return self._window(first, stop)[step - first]

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, _ORDER_KEY, epoch)).permutation(len(self._source))

    def _window_around(self, step: int) -> tuple[int, int]:
        """The steps [first, stop) whose images are grouped together: all of one epoch.

        A batch with images of two epochs is a window of its own, so that no image passes from one
        epoch to the other.
        """
        images, rows = len(self._source), self._batch_size
        epoch = step * rows // images
        begin, end = -(-epoch * images // rows), (epoch + 1) * images // rows
        if not begin <= step < end:
            return step, step + 1
        first = begin + (step - begin) // WINDOW_BATCHES * WINDOW_BATCHES
        return first, min(first + WINDOW_BATCHES, end)

    def _plan_window(self, first: int, stop: int) -> list[Plan]:
        rows, images = self._batch_size, len(self._source)
        epochs, places = np.divmod(np.arange(first * rows, stop * rows), images)
        indices = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            indices[epochs == epoch] = self._permutation(epoch)[places[epochs == epoch]]
        sizes = _fitted_sizes(self._source, indices, self._settings)
        order = np.argsort(orientations(sizes, self._settings), kind="stable").reshape(-1, rows)
        # Grouped batches come in random order, or the net would see all of one kind in a row.
        order = np.random.default_rng((self._seed, _WINDOWS_KEY, first)).permutation(order)
        return [
            Plan(
                canvas=canvas_for(sizes[batch], self._settings),
                indices=indices[batch].tolist(),
                epochs=epochs[batch].tolist(),
            )
            for batch in order
        ]


def eval_order(source: Source, batch_size: int, settings: PipelineConfig) -> list[Plan]:
    """The batches of `pipeline.eval_batches`: every image once."""
    sizes = [eval_size(source.image_size(index), settings) for index in range(len(source))]
    sizes = np.array(sizes, int).reshape(-1, 2)
    order = np.arange(len(sizes))
    if settings.eval_canvas == "few":
        order = np.argsort(orientations(sizes, settings), kind="stable")
    plans = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        padding = [NO_EXAMPLE] * (batch_size - len(batch))
        canvas = eval_canvas_for(sizes[batch], settings)
        plans.append(Plan(canvas, batch.tolist() + padding, [0] * batch_size))
    return plans


def _fitted_sizes(
    source: Source, indices: np.ndarray, settings: PipelineConfig
) -> Int[np.ndarray, "n 2"]:
    sizes = [source.image_size(int(index)) for index in indices]
    return fitted_sizes(sizes, settings)
