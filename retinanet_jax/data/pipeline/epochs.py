"""Defines the images of each epoch, and where it begins in the endless sequence of images."""

import functools

import numpy as np
from jaxtyping import Float, Int

_OFFSETS_KEY = 4  # beside the keys of order.py and input_pipeline.py


class Epochs:
    """Each image appears once per epoch.

    Args:
      count: number of images.
    """

    def __init__(self, count: int):
        self._count = count

    def begin(self, epoch: int) -> int:
        """Returns the place of the first image of an epoch in the sequence."""
        return epoch * self._count

    def at(self, place: int) -> int:
        """Returns the epoch of a place in the sequence."""
        return place // self._count

    def images(self, epoch: int) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        """Returns the images of an epoch, sorted, and how often each has come before."""
        return np.arange(self._count), np.full(self._count, epoch)


class RepeatedEpochs(Epochs):
    """Image i appears r[i] times per epoch on average.

    After e epochs image i has come floor(e r[i] + u[i]) times, u[i] being uniform in [0, 1) by the
    seed: in each epoch r[i] times rounded up or down, and where an epoch begins is a sum over the
    images, without a state.

    Args:
      repeats: r, at least 1 for each image.
      seed: seed of the run.
    """

    def __init__(self, repeats: Float[np.ndarray, " n"], seed: int):
        super().__init__(len(repeats))
        self._repeats = repeats
        self._offsets = np.random.default_rng((seed, _OFFSETS_KEY)).random(len(repeats))
        # Asked for each row of a batch.
        self._begin = functools.lru_cache(16)(lambda epoch: int(self._before(epoch).sum()))

    def begin(self, epoch: int) -> int:
        return self._begin(epoch)

    def at(self, place: int) -> int:
        # An epoch is as long as the mean but for less than an image for each image.
        epoch = int(place / self._repeats.sum())
        while self.begin(epoch) > place:
            epoch -= 1
        while self.begin(epoch + 1) <= place:
            epoch += 1
        return epoch

    def images(self, epoch: int) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        before, after = self._before(epoch), self._before(epoch + 1)
        counts = after - before
        indices = np.repeat(np.arange(len(counts)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        return indices, before[indices] + np.arange(len(indices)) - first

    def _before(self, epoch: int) -> Int[np.ndarray, " n"]:
        """How often each image has come before an epoch."""
        return np.floor(epoch * self._repeats + self._offsets).astype(np.int64)
