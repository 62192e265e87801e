"""Axes of charts: where values lie, and which of them are named."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Axis(NamedTuple):
    """From values to pixels.

    low, high: values at the ends.
    title: beneath it.
    log: whether equal ratios are equal distances.
    """

    low: float
    high: float
    title: str
    log: bool = True

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """Where values lie, 0 to 1; those outside lie at the ends."""
        scale = np.log if self.log else np.asarray
        low, high = scale(np.array([self.low, self.high]))
        return np.asarray((scale(np.clip(values, self.low, self.high)) - low) / (high - low))

    def edges(self, bins: int) -> np.ndarray:
        """Equally wide bins of a histogram."""
        space = np.geomspace if self.log else np.linspace
        return space(self.low, self.high, bins + 1)

    def ticks(self) -> list[float]:
        """Round values, about six."""
        if self.log:
            powers = np.arange(np.ceil(np.log2(self.low)), np.floor(np.log2(self.high)) + 1)
            return [2.0**power for power in powers[:: max(1, len(powers) // 6)]]
        step = (self.high - self.low) / 6
        magnitude = 10.0 ** np.floor(np.log10(step))
        step = min((m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= step), default=step)
        first = np.ceil(self.low / step)
        # Adding zero makes 0 of -0.
        return [float(step * k) + 0.0 for k in np.arange(first, self.high / step + 1e-9)]

    def name(self, value: float) -> str:
        """The text at a tick: ratios below one are fractions."""
        fraction = self.log and value < 1
        return f"1/{1 / value:g}" if fraction else f"{value:g}"


def octaves(values: np.ndarray, title: str) -> Axis:
    """A logarithmic axis in whole octaves around those of some values that are positive."""
    positive = values[values > 0]
    if not positive.size:
        return Axis(1.0, 2.0, title)
    low, high = np.floor(np.log2(positive.min())), np.ceil(np.log2(positive.max()))
    return Axis(float(2.0**low), float(2.0 ** max(high, low + 1)), title)


class Steps(NamedTuple):
    """An axis on which some values are equally far from each other, however they are spaced.

    values: rising; each has a tick.
    title: beneath it.
    """

    values: tuple[float, ...]
    title: str

    def place(self, values: Float[np.ndarray, " n"] | float) -> np.ndarray:
        """Where values of the axis lie, in (0, 1)."""
        return np.asarray((np.searchsorted(self.values, values) + 0.5) / len(self.values))

    def ticks(self) -> list[float]:
        """All values."""
        return list(self.values)

    def name(self, value: float) -> str:
        """The text at a tick."""
        return f"{value:g}"


def around(values: Sequence[float], title: str) -> Axis:
    """A linear axis on which some values lie, with a little room beyond them."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - room, high + room, title, log=False)
