"""The plot of a sweep: lines over a field that is a number, or a row for each combination."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retinanet_jax.reports.html_page import shortened
from retinanet_jax.reports.plot_style import COLORS, add_legend, new_plot, set_decades, styled
from retinanet_jax.reports.plots import shades
from retinanet_jax.sweep.grid import name_of
from retinanet_jax.sweep.seed_groups import Group

PREFERRED_FIELD = "loss.gamma"  # the x axis, if it varies
MAX_STEPS = 12  # values of an x axis with evenly spaced ticks
LOG_RATIO = 16.0  # largest over smallest value, from which on an x axis is logarithmic
MARKERS = "osv^D"  # lines differ in their markers, too
MEASURED, PUBLISHED = "this sweep", "paper (COCO)"
ROW_HEIGHT, MAX_LETTERS = 22, 44

Lines = dict[str, list[Group]]


def draw_sweep(groups: Sequence[Group], name: str) -> Figure | None:
    """Means over the seeds, the value of each seed, and the numbers of the paper, if there are any.

    Lines over loss.gamma, or over the first field that is a number, if each other combination of
    fields has several values of it; else a row for each combination.

    Args:
        groups: groups of trials. Unfinished trials are left out.
        name: name of the number to plot, for example 'AP'.

    Returns:
        None if no trial has this number.
    """
    if not any(group.values(name) for group in groups):
        return None
    field, lines = _find_lines(groups)
    if field is None:
        return _draw_rows(groups, name)
    return _draw_lines(field, lines, name)


@styled
def _draw_lines(field: str, lines: Lines, name: str) -> Figure:
    figure, axes = new_plot(field, name)
    place = _x_axis(axes, [group.settings[field] for line in lines.values() for group in line])
    handles: dict[str, Artist] = {}
    for number, (title, color) in enumerate(zip(lines, shades(len(lines)), strict=True)):
        marker = MARKERS[number % len(MARKERS)]
        published = [g for g in lines[title] if name in g.paper]
        x, paper = [place(g.settings[field]) for g in published], [g.paper[name] for g in published]
        axes.plot(x, paper, f"{marker}--", color=color, mfc=COLORS["card"], ms=7)
        measured = [g for g in lines[title] if g.values(name)]
        x, values = [place(g.settings[field]) for g in measured], [g.values(name) for g in measured]
        low, mean, high = ([f(v) for v in values] for f in (min, np.mean, max))
        axes.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
        (handles[title or name],) = axes.plot(x, mean, f"{marker}-", color=color, ms=7)
        for at, seeds in zip(x, values, strict=True):
            if len(seeds) > 1:
                axes.plot([at] * len(seeds), seeds, ".", color=color, alpha=0.6, ms=5)
    if any(name in group.paper for line in lines.values() for group in line):
        style = {"color": COLORS["soft"], "mfc": COLORS["card"], "ms": 7}
        (handles[PUBLISHED],) = axes.plot([], [], "o--", **style)
    add_legend(figure, list(handles.values()), list(handles))
    return figure


@styled
def _draw_rows(groups: Sequence[Group], name: str) -> Figure:
    figure, axes = new_plot(name, "", width=560, height=70 + ROW_HEIGHT * len(groups))
    rows = range(len(groups))
    handles: dict[str, Artist] = {}
    for row, group in zip(rows, groups, strict=True):
        if name in group.paper:
            style = {"color": COLORS["second"], "mfc": COLORS["card"], "ms": 8, "mew": 1.5}
            (handles[PUBLISHED],) = axes.plot([group.paper[name]], [row], "o", **style)
        if seeds := group.values(name):
            style = {"color": COLORS["accent"], "ms": 8}
            (handles[MEASURED],) = axes.plot([np.mean(seeds)], [row], "o", **style)
            if len(seeds) > 1:
                axes.plot(seeds, [row] * len(seeds), ".", color=COLORS["accent"], alpha=0.6, ms=5)
    titles = [g.paper.get("row") or name_of(g.settings, g.settings) for g in groups]
    axes.set_yticks(rows, [shortened(title, MAX_LETTERS) for title in titles])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    add_legend(figure, list(handles.values()), list(handles))
    return figure


def _find_lines(groups: Sequence[Group]) -> tuple[str | None, Lines]:
    """The field of the x axis and the groups of each line by its name, or (None, {}).

    A line is named after the other fields. Fields that depend on that of the x axis are left out,
    for instance alpha where each gamma has its own.
    """
    fields = dict.fromkeys(field for group in groups for field in group.settings)
    for field in sorted(fields, key=lambda field: field != PREFERRED_FIELD):
        if not all(_is_number(group.settings.get(field)) for group in groups):
            continue
        others = [f for f in fields if f != field and not _depends(f, field, groups)]
        lines: Lines = {}
        for group in sorted(groups, key=lambda group: group.settings[field]):
            rest = {f: group.settings[f] for f in others if f in group.settings}
            lines.setdefault(name_of(rest, others) if others else "", []).append(group)
        if min(map(len, lines.values())) > 1:
            return field, lines
    return None, {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _depends(field: str, other: str, groups: Sequence[Group]) -> bool:
    """Whether each value of `other` has one value of `field`."""
    pairs = {(group.settings.get(other), group.settings.get(field)) for group in groups}
    return len(pairs) == len({value for value, _ in pairs})


def _x_axis(axes: Axes, values: Sequence[float | int]) -> Callable[[float | int], float]:
    """Sets the ticks for the values of a field, and returns the position of a value."""
    distinct = sorted({float(value) for value in values})
    if len(distinct) <= MAX_STEPS:
        axes.set_xticks(range(len(distinct)), [f"{value:g}" for value in distinct])
        return lambda value: float(distinct.index(float(value)))
    if distinct[0] > 0 and distinct[-1] / distinct[0] > LOG_RATIO:
        set_decades(axes)
    return float
