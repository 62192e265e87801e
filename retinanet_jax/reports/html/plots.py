"""Lines, bands and bars as SVG with their legends inside, so that they stand alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from retinanet_jax.reports.html.axes import Axis, Steps
from retinanet_jax.reports.html.frame import BOTTOM, DASHES, HEIGHT, Key, box, dashes, frame, places
from retinanet_jax.reports.html.markup import Html, tag

# From sky blue by a dark violet to orange: neighbours differ in lightness, for those who see fewer
# colours, and all are seen on white and on black.
SHADES = ((42, 150, 226), (72, 62, 204), (200, 62, 128), (236, 146, 34))


class Line(NamedTuple):
    """A line of a plot; NaN in `y` is left out."""

    name: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    color: str
    dashed: bool = False


class Band(NamedTuple):
    """What lies between two lines."""

    name: str
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    color: str


def shades(count: int) -> list[str]:
    """Colours for what has an order."""
    at = np.linspace(0, len(SHADES) - 1, max(count, 2))[:count]
    parts = [np.interp(at, range(len(SHADES)), part) for part in zip(*SHADES, strict=True)]
    return ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in np.round(parts).astype(int).T.tolist()]


def line_plot(x_axis: Axis, y_axis: Axis, lines: Sequence[Line]) -> Html:
    """Lines over two axes."""
    return frame(x_axis, y_axis, strokes(x_axis, y_axis, lines), _keys(lines))


def band_plot(
    x_axis: Axis, y_axis: Axis, x: Float[np.ndarray, " n"], bands: Sequence[Band]
) -> Html:
    """Bands over two axes, the first at the bottom; the legend has them from the top."""
    drawn = [
        tag("path", tag("title", band.name), d=outline(x_axis, y_axis, x, band), fill=band.color)
        for band in bands
    ]
    return frame(x_axis, y_axis, drawn, [box(band.name, band.color) for band in reversed(bands)])


def bar_plot(
    x_axis: Axis,
    y_axis: Axis,
    edges: Float[np.ndarray, " n1"],
    bars: Float[np.ndarray, " n"],
    lines: Sequence[Line],
    name: str,
) -> Html:
    """Bars between edges, with lines over them; NaN has no bar."""
    at = [places(x_axis, y_axis, edges[i : i + 2], bars[i : i + 1]) for i in range(len(bars))]
    base = HEIGHT - BOTTOM
    drawn = [
        tag(
            "rect",
            x=float(x[0]) + 1,
            y=float(y[0]),
            width=float(x[1] - x[0]) - 2,
            height=float(base - y[0]),
            class_="series0",
        )
        for x, y in at
        if np.isfinite(y[0])
    ]
    drawn += strokes(x_axis, y_axis, lines)
    return frame(x_axis, y_axis, drawn, [box(name, "var(--accent)"), *_keys(lines)])


def strokes(x_axis: Axis | Steps, y_axis: Axis, lines: Sequence[Line]) -> list[Html]:
    """Lines as they lie in the frame."""
    return [
        tag(
            "path",
            d=_path(*places(x_axis, y_axis, line.x, line.y)),
            class_="plotted",
            stroke=line.color,
            stroke_dasharray=DASHES if line.dashed else None,
        )
        for line in lines
    ]


def outline(x_axis: Axis | Steps, y_axis: Axis, x: Float[np.ndarray, " n"], band: Band) -> str:
    """The path around a band in the frame."""
    there, back = (places(x_axis, y_axis, x, y) for y in (band.low, band.high))
    around = (np.concatenate([a, b[::-1]]) for a, b in zip(there, back, strict=True))
    return _path(*around) + "Z"


def _keys(lines: Sequence[Line]) -> list[Key]:
    return [(dashes if line.dashed else box)(line.name, line.color) for line in lines]


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Straight lines through points; those that nobody could tell from their neighbours are not."""
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    if not len(x):
        return ""
    cells = np.round(np.stack([x, y]) * 3)
    kept = np.append(True, (np.diff(cells, axis=1) != 0).any(axis=0))
    kept[-1] = True
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(x[kept].tolist(), y[kept].tolist(), strict=True)]
    return "M" + "L".join(points)
