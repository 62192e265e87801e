"""The plot of a sweep over steps: whether its trials were trained to the end."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from retinanet_jax.reports.html_page import shortened
from retinanet_jax.reports.plot_style import add_legend, new_plot, styled
from retinanet_jax.reports.plots import shades
from retinanet_jax.sweep.grid import name_of
from retinanet_jax.sweep.steps_csv import read_steps
from retinanet_jax.sweep.sweep_plot import MARKERS, MAX_LETTERS
from retinanet_jax.sweep.trials import Trial

Curve = dict[int, list[float]]  # step -> a value of each seed


def draw_steps(trials: Sequence[Trial], name: str) -> Figure | None:
    """A line for each combination of fields, the mean over its seeds; the band is their range.

    Args:
        trials: trials of the sweep. Trials without an evaluation are left out.
        name: name of a number in the evaluations, for example 'AP'.

    Returns:
        None if no trial was evaluated at two steps.
    """
    curves = _curves(trials, f"eval/{name}")
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    return _draw(curves, name)


@styled
def _draw(curves: dict[str, Curve], name: str) -> Figure:
    figure, axes = new_plot("step", name)
    handles = []
    for number, (curve, color) in enumerate(zip(curves.values(), shades(len(curves)), strict=True)):
        steps = sorted(curve)
        low, mean, high = ([f(curve[step]) for step in steps] for f in (min, np.mean, max))
        axes.fill_between(steps, low, high, color=color, alpha=0.13, lw=0)
        marker = MARKERS[number % len(MARKERS)]
        handles += axes.plot(steps, mean, f"{marker}-", color=color, ms=5)
    add_legend(figure, handles, [shortened(title, MAX_LETTERS) for title in curves])
    return figure


def _curves(trials: Sequence[Trial], number: str) -> dict[str, Curve]:
    """The values of a number by combination and step."""
    curves: dict[str, Curve] = {}
    for trial in trials:
        title = trial.paper.get("row") or name_of(trial.combination, trial.combination)
        for step, values in read_steps(trial):
            value = values.get(number)
            if value is not None:
                curves.setdefault(title, {}).setdefault(step, []).append(value)
    return curves
