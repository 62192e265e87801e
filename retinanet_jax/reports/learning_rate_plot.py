"""The plot of a range test of the learning rate."""

from matplotlib.figure import Figure

from retinanet_jax.reports.plot_style import COLORS, add_legend, new_plot, set_decades, styled
from retinanet_jax.reports.plots import shades
from retinanet_jax.training.learning_rate_test import RangeTest


@styled
def draw_range_test(test: RangeTest) -> Figure:
    """Loss over the learning rate, with its moving average and the suggestion."""
    figure, axes = new_plot("config.optimizer.learning_rate", "loss")
    light, dark = COLORS["soft"], shades(1)[0]
    (each,) = axes.plot(test.rates, test.losses, ".", color=light, ms=4)
    (mean,) = axes.plot(test.rates, test.smoothed, color=dark, lw=2)
    handles, names = [each, mean], ["of each step", "moving average"]
    if test.suggestion is not None:
        handles.append(axes.axvline(test.suggestion, color=COLORS["ink"], ls="--", lw=1))
        names.append(f"suggestion: {test.suggestion:g}")
    set_decades(axes)
    if test.losses:
        # Losses after the divergence would hide the others.
        highest = 2 * max(test.smoothed[0], min(test.smoothed))
        axes.set_ylim(0, min(1.1 * max(test.losses), highest))
    add_legend(figure, handles, names)
    return figure
