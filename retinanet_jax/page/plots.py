"""Lines, bands and bars as SVG with their legends inside, so that they stand alone."""

import colorsys
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from retinanet_jax.page.charts import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Axis
from retinanet_jax.page.document import STYLE
from retinanet_jax.page.markup import Html, join, tag

HEIGHT = 330  # of the plot with its axis, without the legend
LINE, LETTER = 18, 6.4  # pixels between lines of the legend, and of a letter


class Line(NamedTuple):
    """A line of a plot; NaN in `y` is left out."""

    name: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    color: str
    dashed: bool = False


class Spread(NamedTuple):
    """A line through points that were measured, each with its lowest and its highest value.

    One that is dashed has rings for dots, and no place in the legend: it is told elsewhere.
    """

    name: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    color: str
    dashed: bool = False


class Band(NamedTuple):
    """What lies between two lines."""

    name: str
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    color: str


def shades(count: int) -> list[str]:
    """Colours from blue by violet to orange for what has an order; seen on dark and on light."""
    hues = np.linspace(0.58, 1.07, max(count, 2))[:count] % 1
    rgb = (colorsys.hls_to_rgb(hue, 0.52, 0.72) for hue in hues.tolist())
    return ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in rgb]


def line_plot(x_axis: Axis, y_axis: Axis, lines: Sequence[Line]) -> Html:
    """Lines over two axes."""
    drawn = _strokes(x_axis, y_axis, lines)
    return _plot(x_axis, y_axis, drawn, [(line.name, line.color) for line in lines])


def spread_plot(x_axis: Axis, y_axis: Axis, lines: Sequence[Spread]) -> Html:
    """Lines with a dot at each point, and a stroke from its lowest to its highest value."""
    drawn = _strokes(x_axis, y_axis, [Line(p.name, p.x, p.y, p.color, p.dashed) for p in lines])
    for line in lines:
        across, up = _places(x_axis, y_axis, line.x, line.y)
        _, low = _places(x_axis, y_axis, line.x, line.low)
        _, high = _places(x_axis, y_axis, line.x, line.high)
        for x, y, bottom, top in np.stack([across, up, low, high], -1).tolist():
            if top < bottom:
                drawn.append(tag("line", x1=x, x2=x, y1=bottom, y2=top, stroke=line.color))
            fill = "var(--card)" if line.dashed else line.color
            drawn.append(tag("circle", cx=x, cy=y, r=3.5, fill=fill, stroke=line.color))
    keys = [(line.name, line.color) for line in lines if not line.dashed]
    return _plot(x_axis, y_axis, drawn, keys)


def band_plot(
    x_axis: Axis, y_axis: Axis, x: Float[np.ndarray, " n"], bands: Sequence[Band]
) -> Html:
    """Bands over two axes, the first at the bottom; the legend has them from the top."""
    drawn = []
    for band in bands:
        there, back = (_places(x_axis, y_axis, x, y) for y in (band.low, band.high))
        outline = (np.concatenate([a, b[::-1]]) for a, b in zip(there, back, strict=True))
        title = tag("title", band.name)
        drawn.append(tag("path", title, d=_path(*outline) + "Z", fill=band.color))
    return _plot(x_axis, y_axis, drawn, [(band.name, band.color) for band in reversed(bands)])


def bar_plot(
    x_axis: Axis,
    y_axis: Axis,
    edges: Float[np.ndarray, " n1"],
    bars: Float[np.ndarray, " n"],
    lines: Sequence[Line],
    name: str,
) -> Html:
    """Bars between edges, with lines over them; NaN has no bar."""
    places = [_places(x_axis, y_axis, edges[i : i + 2], bars[i : i + 1]) for i in range(len(bars))]
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
        for x, y in places
        if np.isfinite(y[0])
    ]
    drawn += _strokes(x_axis, y_axis, lines)
    keys = [(name, "var(--accent)"), *((line.name, line.color) for line in lines)]
    return _plot(x_axis, y_axis, drawn, keys)


def standalone(svg: Html) -> str:
    """A plot as a file of its own: light colours, and no variables, which some cannot read."""
    style = STYLE.read_text(encoding="utf-8")
    colors = dict(re.findall(r"(--[\w-]+): (#\w+)", style.split("}")[0]))
    rules = "\n".join(line for line in style.splitlines() if line.startswith(".chart"))
    font = "text { font-family: sans-serif; }\n"
    begin, rest = svg.split(">", 1)
    begin = begin.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    whole = f"{begin}>{tag('style', Html(font + rules))}{rest}\n"
    return re.sub(r"var\((--[\w-]+)\)", lambda found: colors[found[1]], whole)


def _strokes(x_axis: Axis, y_axis: Axis, lines: Sequence[Line]) -> list[Html]:
    return [
        tag(
            "path",
            d=_path(*_places(x_axis, y_axis, line.x, line.y)),
            class_="plotted",
            stroke=line.color,
            stroke_dasharray="5 4" if line.dashed else None,
        )
        for line in lines
    ]


def _places(x_axis: Axis, y_axis: Axis, x, y) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of points; NaN stays."""
    across = LEFT + x_axis.place(x) * (WIDTH - LEFT - RIGHT)
    up = HEIGHT - BOTTOM - y_axis.place(y) * (HEIGHT - TOP - BOTTOM)
    return np.asarray(across), np.asarray(up)


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


def _plot(x_axis: Axis, y_axis: Axis, drawn: list[Html], keys: list[tuple[str, str]]) -> Html:
    """The frame: grid, axes, title and legend."""
    base, parts = HEIGHT - BOTTOM, []
    for value in y_axis.ticks():
        y = float(_places(x_axis, y_axis, x_axis.low, value)[1])
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", y_axis.name(value), x=LEFT - 6, y=y + 4, text_anchor="end"))
    for value in x_axis.ticks():
        x = float(_places(x_axis, y_axis, value, y_axis.low)[0])
        parts.append(tag("text", x_axis.name(value), x=x, y=base + 17, text_anchor="middle"))
    parts += [*drawn, tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis")]
    title = f"{x_axis.title}; upwards {y_axis.title}"
    middle = (WIDTH + LEFT - RIGHT) / 2
    parts.append(tag("text", title, x=middle, y=HEIGHT - 5, text_anchor="middle", class_="title"))
    legend, height = _legend(keys)
    view = f"0 0 {WIDTH} {height}"
    return tag("svg", parts, legend, viewBox=view, class_="chart", role="img", aria_label=title)


def _legend(keys: list[tuple[str, str]]) -> tuple[Html, float]:
    """Names beneath the plot, as many a line as there is room for, and the height of it all."""
    if len(keys) < 2:
        return Html(), HEIGHT + 4.0
    drawn, x, y = [], float(LEFT), HEIGHT + 14.0
    for name, color in keys:
        width = 22 + LETTER * len(name)
        if x > LEFT and x + width > WIDTH - 4:
            x, y = float(LEFT), y + LINE
        drawn.append(tag("rect", x=x, y=y - 9, width=10, height=10, rx=2, fill=color))
        drawn.append(tag("text", name, x=x + 15, y=y))
        x += width + 8
    return join(drawn), y + 12
