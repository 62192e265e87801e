"""Plots of the reports: lines, bands, bars, histograms, points and matrices.

Each function takes arrays and returns a matplotlib Figure, for `plot_style.inline_svg`, a notebook
or a file. Lines and areas have their own colors, which differ in lightness too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retinanet_jax.reports.html_page import shortened
from retinanet_jax.reports.plot_style import (
    COLORS,
    FONT_SIZE,
    WIDTH,
    add_legend,
    new_plot,
    set_octaves,
    styled,
)

# From sky blue over dark violet to orange: neighbours differ in lightness, for readers who see
# fewer colors, and all are visible on white and on black.
SHADES = ((42, 150, 226), (72, 62, 204), (200, 62, 128), (236, 146, 34))
UNIT = (0.0, 1.0)
HISTOGRAM_HEIGHT = 240  # pixels
MAX_NUMBERED = 12  # rows of a matrix whose cells have room for numbers
ON_DARK = "#fefefe"  # numbers on dark cells, the same in light and dark mode


class Line(NamedTuple):
    """A line of a plot. NaN in `y` leaves a gap."""

    name: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    color: str
    dashed: bool = False


class Band(NamedTuple):
    """The area between two lines."""

    name: str
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    color: str


class Mark(NamedTuple):
    """A vertical line with a name above it."""

    value: float
    name: str


def shades(count: int) -> list[str]:
    """Colors for an ordered series."""
    at = np.linspace(0, len(SHADES) - 1, max(count, 2))[:count]
    parts = [np.interp(at, range(len(SHADES)), part) for part in zip(*SHADES, strict=True)]
    return ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in np.round(parts).astype(int).T.tolist()]


@styled
def line_plot(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
) -> Figure:
    """Lines with a legend. None: limits that hold all values."""
    figure, axes = new_plot(x_label, y_label)
    handles = _draw_lines(axes, lines)
    axes.set(xlim=x_limits, ylim=y_limits)
    add_legend(figure, handles, [line.name for line in lines])
    return figure


@styled
def band_plot(
    x: Float[np.ndarray, " n"], bands: Sequence[Band], x_label: str, y_label: str
) -> Figure:
    """Bands over [0, 1] x [0, 1], the first at the bottom; the legend lists them from the top."""
    figure, axes = new_plot(x_label, y_label)
    areas = [axes.fill_between(x, low, high, color=color, lw=0) for _, low, high, color in bands]
    axes.set(xlim=UNIT, ylim=UNIT)
    add_legend(figure, areas[::-1], [band.name for band in bands][::-1])
    return figure


@styled
def bar_plot(
    edges: Float[np.ndarray, " n1"],
    heights: Float[np.ndarray, " n"],
    name: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    y_limits: tuple[float, float] | None = None,
) -> Figure:
    """Bars between edges, with lines over them. NaN leaves a gap."""
    figure, axes = new_plot(x_label, y_label)
    bars = _draw_bars(axes, edges, heights)
    handles = [bars, *_draw_lines(axes, lines)]
    axes.set(xlim=(edges[0], edges[-1]), ylim=y_limits)
    add_legend(figure, handles, [name, *(line.name for line in lines)])
    return figure


@styled
def histogram(
    series: Sequence[tuple[str, np.ndarray]],
    x_label: str,
    limits: tuple[float, float],
    *,
    bins: int = 24,
    octaves: bool = False,
    marks: Sequence[Mark] = (),
) -> Figure:
    """Shares of the values in bins: the first series as bars, the others as steps.

    Args:
      series: names and values. Values outside the limits count in the first and the last bin.
      octaves: whether the axis is logarithmic, with powers of two as ticks.
      marks: those outside the limits are left out.
    """
    figure, axes = new_plot(x_label, "", height=HISTOGRAM_HEIGHT)
    edges = np.geomspace(*limits, bins + 1) if octaves else np.linspace(*limits, bins + 1)
    handles = []
    for number, (_, values) in enumerate(series):
        counts, _ = np.histogram(np.clip(values, *limits), edges)
        shares = counts / max(1, len(values))
        if number == 0:
            handles.append(_draw_bars(axes, edges, shares))
        else:
            handles.append(axes.stairs(shares, edges, color=COLORS["second"], lw=2))
    axes.set(xlim=limits, ylim=(0, None))
    if octaves:
        set_octaves(axes, "x", limits)
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    _draw_marks(axes, [mark for mark in marks if limits[0] <= mark.value <= limits[1]])
    add_legend(figure, handles, [name for name, _ in series])
    return figure


@styled
def shape_plot(
    groups: Sequence[tuple[str, Float[np.ndarray, "_ 2"], str]],
    crosses: Float[np.ndarray, "_ 2"],
    crosses_name: str,
    limits: tuple[float, float],
    x_label: str,
    y_label: str,
) -> Figure:
    """Widths and heights as points in groups of (name, points, color), with crosses over them."""
    figure, axes = new_plot(x_label, y_label, height=WIDTH)
    handles = [
        axes.plot(*points.T, ".", color=color, ms=6, alpha=0.75, mew=0)[0]
        for _, points, color in groups
    ]
    handles += axes.plot(*crosses.T, "+", color=COLORS["ink"], ms=8, mew=1.6)
    for which in "xy":
        set_octaves(axes, which, limits)
    for points in handles:
        points.set_clip_on(False)
    axes.set_aspect("equal")
    add_legend(figure, handles, [*(name for name, *_ in groups), crosses_name])
    return figure


@styled
def matrix_plot(
    shares: Float[np.ndarray, "r c"],
    cells: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    titles: tuple[str, str],
) -> Figure:
    """A matrix of shares in [0, 1] as shades, with the text of `cells` in a small matrix.

    Args:
      rows, columns: names.
      titles: titles of the rows and of the columns.
    """
    side = max(9.0, min(48.0, 620 / max(len(rows), len(columns))))  # pixels of a cell
    letter = min(FONT_SIZE, 0.95 * side)
    row_names, column_names = (list(map(shortened, names)) for names in (rows, columns))
    margin = 0.62 * letter * max(map(len, (*row_names, *column_names))) + 40
    width, height = margin + side * len(columns), margin + side * len(rows)
    figure, axes = new_plot("", "", width=width, height=height)
    colors = np.empty((*shares.shape, 4))
    colors[..., :3] = [int(COLORS["accent"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    colors[..., 3] = shares
    axes.imshow(colors, interpolation="none")
    axes.grid(visible=False)
    axes.spines.bottom.set_visible(False)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), column_names, fontsize=letter, rotation=90)
    axes.set_yticks(range(len(rows)), row_names, fontsize=letter)
    axes.set_ylabel(titles[0])
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(titles[1])
    if len(rows) <= MAX_NUMBERED:
        for row, column in np.argwhere(shares > 0).tolist():
            color = ON_DARK if shares[row, column] > 0.55 else COLORS["ink"]
            place = {"ha": "center", "va": "center", "color": color}
            axes.text(column, row, cells[row][column], **place)
    return figure


def _draw_lines(axes: Axes, lines: Sequence[Line]) -> list:
    return [
        axes.plot(line.x, line.y, color=line.color, ls="--" if line.dashed else "-")[0]
        for line in lines
    ]


def _draw_bars(axes: Axes, edges: np.ndarray, heights: np.ndarray):
    style = {"align": "edge", "color": COLORS["accent"], "alpha": 0.75, "ec": COLORS["card"]}
    return axes.bar(edges[:-1], heights, np.diff(edges), lw=1, **style)


def _draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    for value, name in marks:
        axes.axvline(value, color=COLORS["soft"], ls=(0, (3, 3)), lw=1)
        place = {"xy": (value, 1), "xycoords": ("data", "axes fraction")}
        offset = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center"}
        axes.annotate(name, **place, **offset, fontsize=10)
