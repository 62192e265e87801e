"""Charts as inline SVG; colours and type come from the page's style sheet."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from retinanet_jax.reports.html.axes import Axis
from retinanet_jax.reports.html.frame import BOTTOM, LEFT, RIGHT, TOP, WIDTH
from retinanet_jax.reports.html.markup import Html, tag

HEIGHT = 230


def histogram(
    axis: Axis,
    series: Sequence[tuple[str, np.ndarray]],
    *,
    bins: int = 24,
    marks: Sequence[tuple[float, str]] = (),
) -> Html:
    """Shares of the values in bins: the first series as bars, the others as lines over them.

    Args:
      series: names and values; values outside the axis count in its last bins.
      marks: values with a name, drawn as vertical lines; those outside the axis are not.
    """
    edges = axis.edges(bins)
    shares = [_shares(values, edges) for _, values in series]
    highest = max((share.max(initial=0) for share in shares), default=0) or 1.0
    x = LEFT + axis.place(edges) * (WIDTH - LEFT - RIGHT)
    parts = [_grid(highest), _ticks(axis)]
    for number, share in enumerate(shares):
        y = HEIGHT - BOTTOM - share / highest * (HEIGHT - TOP - BOTTOM)
        draw = _bars if number == 0 else _steps
        parts.append(draw(x, y, f"series{number}"))
    for value, name in marks:
        if not axis.low <= value <= axis.high:
            continue
        at = LEFT + float(axis.place(value)) * (WIDTH - LEFT - RIGHT)
        parts.append(tag("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark"))
        parts.append(tag("text", name, x=at, y=TOP - 6, class_="mark", text_anchor="middle"))
    return _chart(axis.title, parts, [name for name, _ in series])


def scatter(
    x_axis: Axis,
    y_axis: Axis,
    groups: Sequence[tuple[str, Float[np.ndarray, "_ 2"]]],
    crosses: Float[np.ndarray, "_ 2"],
) -> Html:
    """Points of some groups, each in its colour, and crosses over them; (x, y) per row."""
    height = WIDTH - LEFT - RIGHT + TOP + BOTTOM

    def places(points: np.ndarray) -> zip:
        x = LEFT + x_axis.place(points[:, 0]) * (WIDTH - LEFT - RIGHT)
        y = height - BOTTOM - y_axis.place(points[:, 1]) * (height - TOP - BOTTOM)
        return zip(x.tolist(), y.tolist(), strict=True)

    parts = [_ticks(x_axis, height)]
    for value in y_axis.ticks():
        y = height - BOTTOM - float(y_axis.place(value)) * (height - TOP - BOTTOM)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", y_axis.name(value), x=LEFT - 6, y=y + 4, text_anchor="end"))
    for number, (_, points) in enumerate(groups):
        dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in places(points))
        parts.append(tag("path", d=dots, class_=f"dots group{number}"))
    lines = "".join(f"M{x - 4:.0f} {y:.0f}h8m-4 -4v8" for x, y in places(crosses))
    parts.append(tag("path", d=lines, class_="cross"))
    parts.append(tag("text", y_axis.title, x=6, y=14, class_="title"))
    names = [name for name, _ in groups]
    return _chart(x_axis.title, parts, names, height, kind="group")


def bar(shares: Sequence[float], kinds: Sequence[str]) -> Html:
    """A bar of HTML divided into shares of its width, a class of the style sheet for each."""
    parts = [
        tag("i", class_=kind, style=f"width:{100 * share:.2f}%")
        for share, kind in zip(shares, kinds, strict=True)
        if share > 0
    ]
    return tag("span", parts, class_="bar")


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / max(1, len(values))


def _bars(x: np.ndarray, y: np.ndarray, kind: str) -> list[Html]:
    base = float(HEIGHT - BOTTOM)
    return [
        tag(
            "rect",
            x=float(a) + 0.5,
            y=float(t),
            width=float(b - a) - 1,
            height=base - float(t),
            class_=kind,
        )
        for a, b, t in zip(x[:-1], x[1:], y, strict=True)
        if t < base
    ]


def _steps(x: np.ndarray, y: np.ndarray, kind: str) -> Html:
    points = "".join(
        f"L{a:.1f} {t:.1f}L{b:.1f} {t:.1f}" for a, b, t in zip(x[:-1], x[1:], y, strict=True)
    )
    return tag("path", d="M" + points[1:], class_=f"{kind} line")


def _grid(highest: float) -> list[Html]:
    """Horizontal lines at round shares."""
    parts = []
    for share in Axis(0.0, highest, "", log=False).ticks():
        y = HEIGHT - BOTTOM - share / highest * (HEIGHT - TOP - BOTTOM)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", f"{100 * share:g}%", x=LEFT - 6, y=y + 4, text_anchor="end"))
    return parts


def _ticks(axis: Axis, height: int = HEIGHT) -> list[Html]:
    base = height - BOTTOM
    parts = [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis")]
    for value in axis.ticks():
        x = LEFT + float(axis.place(value)) * (WIDTH - LEFT - RIGHT)
        parts.append(tag("text", axis.name(value), x=x, y=base + 17, text_anchor="middle"))
    return parts


def _chart(
    title: str, parts: list, names: list[str], height: int = HEIGHT, kind: str = "series"
) -> Html:
    middle = (WIDTH + LEFT - RIGHT) / 2
    label = tag("text", title, x=middle, y=height - 5, text_anchor="middle", class_="title")
    view = f"0 0 {WIDTH} {height}"
    svg = tag("svg", parts, label, viewBox=view, class_="chart", role="img", aria_label=title)
    keys = [
        tag("span", tag("i", class_=f"{kind}{number}"), name, class_="key")
        for number, name in enumerate(names)
    ]
    return tag("figure", svg, tag("figcaption", keys) if len(names) > 1 else None)
