"""The plot of a sweep: lines over a field that is a number, or a row for each trial."""

from collections.abc import Sequence

import numpy as np

from retinanet_jax.reports.html.axes import Axis, Steps, around, octaves
from retinanet_jax.reports.html.markup import Html
from retinanet_jax.reports.html.measured import SHAPES, Measured, Row, measured_plot, row_plot
from retinanet_jax.reports.html.plots import shades
from retinanet_jax.sweep.grid import name_of
from retinanet_jax.sweep.seed_groups import Group

FIRST = "loss.gamma"  # the field across, where it is varied
MOST_STEPS = 12  # values of the field across: of more, not each has a tick
DECADES = 16.0  # from the lowest to the highest of these: above, equal ratios are equal distances

Lines = dict[str, list[Group]]


def draw_curves(groups: Sequence[Group], name: str) -> Html | None:
    """Means over the seeds with every seed's number, and the paper's where it has these trials.

    Lines over gamma, or over the first field that is a number, if each other combination of fields
    has several values of it; else a row for each trial.

    Args:
        groups: of trials; of those that are not finished, nothing is drawn.
        name: of the number that is drawn.

    Returns:
        None where nothing was measured.
    """
    numbers = [value for group in groups for value in (*group.values(name), *_paper(group, name))]
    if not any(group.values(name) for group in groups):
        return None
    axis = around(numbers, name)
    field, lines = _lines(groups)
    if field is None:
        return row_plot(axis, [_row(group, name) for group in groups])
    drawn = []
    for number, (title, color) in enumerate(zip(lines, shades(len(lines)), strict=True)):
        shape = SHAPES[number % len(SHAPES)]
        ours = [g for g in lines[title] if g.values(name)]
        theirs = [g for g in lines[title] if _paper(g, name)]
        for line, of, published in ((theirs, _paper, True), (ours, Group.values, False)):
            x, values = [g.settings[field] for g in line], [of(g, name) for g in line]
            drawn.append(Measured(title or name, x, values, color, shape, published))
    return measured_plot(_x_axis(groups, field), axis, [line for line in drawn if line.x])


def _paper(group: Group, name: str) -> list[float]:
    return [group.paper[name]] if name in group.paper else []


def _row(group: Group, name: str) -> Row:
    title = group.paper.get("row") or name_of(group.settings, group.settings)
    return Row(title, group.values(name), group.paper.get(name))


def _lines(groups: Sequence[Group]) -> tuple[str | None, Lines]:
    """The field across, and the groups of each line over it by the line's name; (None, {}) if none.

    A line's name tells the other fields, but for those that follow from the field across, as where
    fields change together.
    """
    fields = dict.fromkeys(field for group in groups for field in group.settings)
    for field in sorted(fields, key=lambda field: field != FIRST):
        if not all(_is_number(group.settings.get(field)) for group in groups):
            continue
        others = [f for f in fields if f != field and not _follows(f, field, groups)]
        lines: Lines = {}
        for group in sorted(groups, key=lambda group: group.settings[field]):
            rest = {f: group.settings[f] for f in others if f in group.settings}
            lines.setdefault(name_of(rest, others) if others else "", []).append(group)
        if min(map(len, lines.values())) > 1:
            return field, lines
    return None, {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _follows(field: str, other: str, groups: Sequence[Group]) -> bool:
    """Whether the value of `other` tells that of `field`."""
    pairs = {(group.settings.get(other), group.settings.get(field)) for group in groups}
    return len(pairs) == len({value for value, _ in pairs})


def _x_axis(groups: Sequence[Group], field: str) -> Axis | Steps:
    values = sorted({float(group.settings[field]) for group in groups})
    if len(values) <= MOST_STEPS:
        return Steps(tuple(values), field)
    if values[0] > 0 and values[-1] / values[0] > DECADES:
        return octaves(np.array(values), field)
    return around(values, field)
