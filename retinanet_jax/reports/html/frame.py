"""What plots stand in: grid, axes with their titles, and a legend within the SVG."""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from retinanet_jax.reports.html.axes import Axis, Steps
from retinanet_jax.reports.html.document import STYLE
from retinanet_jax.reports.html.markup import Html, join, tag

WIDTH, HEIGHT = 420, 330  # of a plot with its axes, without the legend
LEFT, RIGHT, TOP, BOTTOM = 40, 16, 24, 40
LINE, LETTER = 18, 6.4  # pixels between lines of the legend, and of a letter
BOX, DASHES = 10, "5 4"  # side of a swatch; of a dashed line


class Key(NamedTuple):
    """A line of a legend: a name and what it looks like, drawn in 10 x 10 pixels around (0, 0)."""

    name: str
    swatch: Html


def box(name: str, color: str) -> Key:
    """The key of an area or a line."""
    half = BOX / 2
    return Key(name, tag("rect", x=-half, y=-half, width=BOX, height=BOX, rx=2, fill=color))


def dashes(name: str, color: str) -> Key:
    """The key of a dashed line."""
    line = {"x1": -8, "x2": 6, "y1": 0, "y2": 0, "stroke": color}
    return Key(name, tag("line", **line, stroke_width=2, stroke_dasharray=DASHES))


def places(
    x_axis: Axis | Steps, y_axis: Axis, x: Float[np.ndarray, " _"], y: Float[np.ndarray, " _"]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of points; NaN stays."""
    across = LEFT + x_axis.place(x) * (WIDTH - LEFT - RIGHT)
    up = HEIGHT - BOTTOM - y_axis.place(y) * (HEIGHT - TOP - BOTTOM)
    return np.asarray(across), np.asarray(up)


def frame(x_axis: Axis | Steps, y_axis: Axis, drawn: list[Html], keys: list[Key]) -> Html:
    """A whole plot; a legend only if it has two lines or more."""
    base, right, parts = HEIGHT - BOTTOM, WIDTH - RIGHT, []
    for value in y_axis.ticks():
        y = base - float(y_axis.place(value)) * (base - TOP)
        parts.append(tag("line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", y_axis.name(value), x=LEFT - 6, y=y + 4, text_anchor="end"))
    for value in x_axis.ticks():
        x = LEFT + float(x_axis.place(value)) * (right - LEFT)
        parts.append(tag("text", x_axis.name(value), x=x, y=base + 17, text_anchor="middle"))
    parts += [*drawn, tag("line", x1=LEFT, x2=right, y1=base, y2=base, class_="axis")]
    middle = (LEFT + right) / 2
    title = {"class_": "title", "y": HEIGHT - 5, "text_anchor": "middle"}
    parts.append(tag("text", x_axis.title, x=middle, **title))
    parts.append(tag("text", y_axis.title, x=6, y=14, class_="title"))
    drawn_legend, height = legend(keys, WIDTH, HEIGHT)
    label = f"{y_axis.title} over {x_axis.title}"
    return plot(f"0 0 {WIDTH} {height:g}", label, parts, drawn_legend)


def plot(view: str, label: str, *parts: object) -> Html:
    """An SVG as the style sheet has them."""
    return tag("svg", *parts, viewBox=view, class_="chart", role="img", aria_label=label)


def legend(keys: list[Key], width: float | int, top: float | int) -> tuple[Html, float]:
    """Names beneath a plot, as many a line as there is room for, and the height of it all."""
    if len(keys) < 2:
        return Html(), top + 4.0
    drawn, x, y = [], float(LEFT), top + 14.0
    for name, swatch in keys:
        needed = 22 + LETTER * len(name)
        if x > LEFT and x + needed > width - 4:
            x, y = float(LEFT), y + LINE
        drawn.append(tag("g", swatch, transform=f"translate({x + BOX / 2:g} {y - 4:g})"))
        drawn.append(tag("text", name, x=x + 15, y=y))
        x += needed + 8
    return join(drawn), y + 12


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
