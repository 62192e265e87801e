"""The plot of a sweep: what was measured over a field that is a number, a line for the others."""

from collections.abc import Sequence

import numpy as np

from retinanet_jax.page.charts import Axis, octaves
from retinanet_jax.page.markup import Html
from retinanet_jax.page.plots import Spread, shades, spread_plot
from retinanet_jax.sweep.axes import name_of
from retinanet_jax.sweep.groups import Group

FIRST = "loss.gamma"  # the field across, where it is varied
DECADES = 16.0  # from the lowest to the highest value: above, equal ratios are equal distances


def draw_curves(groups: Sequence[Group], name: str) -> Html | None:
    """Lines through the means over the seeds, strokes from the lowest to the highest seed.

    Where the paper has numbers of these trials, they are dashed lines of the same colours.

    Args:
        groups: of trials; those that lack the field across, or are not finished, are left out.
        name: of the number that is drawn.

    Returns:
        None where no field that is a number has two values that were measured.
    """
    measured = [group for group in groups if group.values(name)]
    field = _across(measured)
    if field is None:
        return None
    lines = _lines([group for group in measured if field in group.settings], field)
    drawn = []
    for (title, line), color in zip(lines.items(), shades(len(lines)), strict=True):
        values = [group.values(name) for group in line]
        drawn.append(_spread(title or name, line, field, values, color, dashed=False))
        known = [group for group in line if name in group.paper]
        if known:
            values = [[group.paper[name]] for group in known]
            drawn.append(_spread("paper", known, field, values, color, dashed=True))
    return spread_plot(_x_axis(drawn, field), _y_axis(drawn, name), drawn)


def _across(groups: Sequence[Group]) -> str | None:
    """The field that is drawn across: gamma, or the first that is a number and varies."""
    fields = [FIRST, *(field for group in groups for field in group.settings)]
    for field in dict.fromkeys(fields):
        values = {group.settings.get(field) for group in groups} - {None}
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numbers and len(values) > 1:
            return field
    return None


def _lines(groups: Sequence[Group], field: str) -> dict[str, list[Group]]:
    """The groups of each line by its name, which tells what the other fields are.

    Where each value of the field occurs once, as where fields change together, all are one line.
    """
    values = [group.settings[field] for group in groups]
    lines: dict[str, list[Group]] = {}
    for group in sorted(groups, key=lambda group: group.settings[field]):
        others = {name: value for name, value in group.settings.items() if name != field}
        alone = len(set(values)) == len(values) or not others
        lines.setdefault("" if alone else name_of(others, others), []).append(group)
    return lines


def _spread(
    name: str,
    groups: Sequence[Group],
    field: str,
    values: Sequence[list[float]],
    color: str,
    *,
    dashed: bool,
) -> Spread:
    x = np.array([group.settings[field] for group in groups], float)
    mean, low, high = (np.array([fn(v) for v in values], float) for fn in (np.mean, min, max))
    return Spread(name, x, mean, low, high, color, dashed)


def _x_axis(lines: Sequence[Spread], field: str) -> Axis:
    x = np.concatenate([line.x for line in lines])
    if x.min() > 0 and x.max() / x.min() > DECADES:
        return octaves(x, field)
    return Axis(float(x.min()), float(x.max()), field, log=False)


def _y_axis(lines: Sequence[Spread], name: str) -> Axis:
    """From 0, as the numbers are shares, to a little above the highest."""
    highest = max(float(line.high.max()) for line in lines)
    title = f"{name}; dashed: the paper" if any(line.dashed for line in lines) else name
    return Axis(0.0, max(1.05 * highest, 0.01), title, log=False)
