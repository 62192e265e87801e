"""What was measured several times: every value, their mean, and published numbers beside them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from retinanet_jax.reports.html.axes import Axis, Steps
from retinanet_jax.reports.html.frame import LETTER, Key, dashes, frame, legend, places, plot
from retinanet_jax.reports.html.markup import Html, join, shortened, tag
from retinanet_jax.reports.html.plots import Band, Line, outline, strokes

# Marks of lines, so that they are told apart without colours, too: circle, square, triangle and
# diamond around (0, 0), of about one area.
SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
    "M-3.6 -3.6h7.2v7.2h-7.2Z",
    "M0 -4.8L4.8 3.6H-4.8Z",
    "M0 -5.2L5.2 0L0 5.2L-5.2 0Z",
)
MEASURED, PUBLISHED = "measured here", "the paper's, on COCO"
ROW_WIDTH, ROW_HEIGHT = 560, 22  # pixels, of a plot of rows and of one of them
LONGEST = 44  # letters of a row's name


class Measured(NamedTuple):
    """A line through the means of the values at each x; one that is published is dashed."""

    name: str
    x: Sequence[float]
    values: Sequence[Sequence[float]]
    color: str
    shape: str = SHAPES[0]
    published: bool = False


class Row(NamedTuple):
    """What was measured of one thing, and what is published of it."""

    name: str
    values: Sequence[float]
    published: float | None = None


def measured_plot(x_axis: Axis | Steps, y_axis: Axis, lines: Sequence[Measured]) -> Html:
    """Lines with marks at the means, a dot for each value, a band from the lowest to the highest.

    Both axes are linear, or the first one Steps.
    """
    drawn = [part for line in lines for part in _line(x_axis, y_axis, line)]
    keys = [
        Key(line.name, _mark(0.0, 0.0, line.color, line.shape))
        for line in lines
        if not line.published
    ]
    if any(line.published for line in lines):
        dash, ring = dashes("", "var(--soft)").swatch, _mark(0.0, 0.0, "var(--soft)", hollow=True)
        keys.append(Key(PUBLISHED, join([dash, ring])))
    return frame(x_axis, y_axis, drawn, keys)


def row_plot(axis: Axis, rows: Sequence[Row]) -> Html:
    """A row for each thing: its name, a mark at the mean, a dot for each value."""
    names = [shortened(row.name, LONGEST) for row in rows]
    left, top = 16 + LETTER * max(map(len, names)), 12.0
    base, wide = top + ROW_HEIGHT * len(rows), ROW_WIDTH - 16 - left
    drawn = []
    for value in axis.ticks():
        x = left + float(axis.place(value)) * wide
        drawn.append(tag("line", x1=x, x2=x, y1=top, y2=base, class_="grid"))
        drawn.append(tag("text", axis.name(value), x=x, y=base + 17, text_anchor="middle"))
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        y = top + ROW_HEIGHT * (number + 0.5)
        drawn.append(tag("text", name, x=left - 8, y=y + 4, text_anchor="end"))
        if row.published is not None:
            x = left + float(axis.place(row.published)) * wide
            drawn.append(_mark(x, y, "var(--second)", hollow=True))
        x = left + axis.place(np.array(row.values, float)) * wide
        drawn += _points(x, np.full_like(x, y), "var(--accent)")
    title = {"x": left + wide / 2, "y": base + 35, "text_anchor": "middle", "class_": "title"}
    drawn.append(tag("text", axis.title, **title))
    keys = [Key(MEASURED, _mark(0.0, 0.0, "var(--accent)"))]
    if any(row.published is not None for row in rows):
        keys.append(Key(PUBLISHED, _mark(0.0, 0.0, "var(--second)", hollow=True)))
    below, height = legend(keys, ROW_WIDTH, base + 42)
    return plot(f"0 0 {ROW_WIDTH} {height:g}", f"{axis.title} by trial", drawn, below)


def _line(x_axis: Axis | Steps, y_axis: Axis, line: Measured) -> list[Html]:
    x = np.array(line.x, float)
    low, mean, high = (np.array([f(v) for v in line.values], float) for f in (min, np.mean, max))
    around = outline(x_axis, y_axis, x, Band("", low, high, line.color))
    drawn = []
    if (high > low).any():
        drawn.append(tag("path", d=around, fill=line.color, fill_opacity=".13"))
    drawn += strokes(x_axis, y_axis, [Line("", x, mean, line.color, line.published)])
    for at, values in zip(x, line.values, strict=True):
        pixels = places(x_axis, y_axis, np.full(len(values), at), np.array(values, float))
        drawn += _points(*pixels, line.color, line.shape, hollow=line.published)
    return drawn


def _points(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    color: str,
    shape: str = SHAPES[0],
    *,
    hollow: bool = False,
) -> list[Html]:
    """A mark in the middle of points, and where they are several a dot for each; in pixels."""
    if not len(x):
        return []
    dots = [
        tag("circle", cx=a, cy=b, r=1.8, fill=color, fill_opacity=".6")
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
        if len(x) > 1
    ]
    return [_mark(float(x.mean()), float(y.mean()), color, shape, hollow=hollow), *dots]


def _mark(x: float, y: float, color: str, shape: str = SHAPES[0], *, hollow: bool = False) -> Html:
    fill = "var(--card)" if hollow else color
    place = f"translate({x:.1f} {y:.1f})"
    return tag("path", d=shape, transform=place, fill=fill, stroke=color, stroke_width=1.5)
