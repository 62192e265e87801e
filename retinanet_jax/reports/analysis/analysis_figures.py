"""The figures of an analysis, by name: for the page, and for files."""

import numpy as np

from retinanet_jax.core.focal import focal_loss
from retinanet_jax.reports.analysis.analyze_checkpoint import Analysis
from retinanet_jax.reports.analysis.as_json import GAMMAS
from retinanet_jax.reports.analysis.error_kinds import CURVES
from retinanet_jax.reports.analysis.loss_distribution import KINDS, cumulative_loss
from retinanet_jax.reports.analysis.outcomes import COCO_IOUS
from retinanet_jax.reports.analysis.precision_recall import RECALLS, mean_over_classes
from retinanet_jax.reports.html.axes import Axis
from retinanet_jax.reports.html.markup import Html, shortened
from retinanet_jax.reports.html.matrix import matrix_plot
from retinanet_jax.reports.html.plots import Band, Line, band_plot, bar_plot, line_plot, shades

ERROR_COLORS = dict(
    zip(
        CURVES,
        # Right at .75 and at .5, place, similar class, other class, background, missed: neighbours
        # differ in lightness, for those who see fewer colours.
        ("#1f7f4f", "#93d3a8", "#3b78dc", "#b9a2f2", "#a3306f", "#c9bfae", "#ee8f1f"),
        strict=True,
    )
)
PAPER_GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)  # of figure 1
MOST_LINES = 10
GAMMA = "\N{GREEK SMALL LETTER GAMMA}"


def unit(title: str) -> Axis:
    """An axis from 0 to 1."""
    return Axis(0.0, 1.0, title, log=False)


def draw_figures(analysis: Analysis) -> dict[str, Html]:
    """All figures as SVG; those of which there is nothing to show are left out."""
    figures = {
        f"errors_{area}": error_figure(curves, analysis.siblings)
        for area, curves in analysis.errors.items()
        if not np.isnan(curves).all()
    }
    figures["precision_by_iou"] = precision_by_iou(analysis)
    figures["precision_by_class"] = precision_by_class(analysis)
    if analysis.calibration.counts.sum():
        figures["calibration"] = calibration_figure(analysis)
        figures["scores"] = score_figure(analysis)
    figures["confusion"] = confusion_figure(analysis)
    for kind, counts in zip(KINDS, analysis.measures.logits, strict=True):
        if counts.any():
            figures[f"loss_of_{kind}s"] = loss_figure(counts, kind)
    figures["focal_loss"] = focal_figure()
    return figures


def shown_curves(siblings: bool) -> list[str]:
    """The curves to show: Sim is Loc where no supercategories are known."""
    return [name for name in CURVES if siblings or name != "Sim"]


def error_figure(curves: np.ndarray, siblings: bool) -> Html:
    """The seven curves, mean over the classes, as bands on each other."""
    means = dict(zip(CURVES, mean_over_classes(curves), strict=True))
    low, bands = np.zeros_like(RECALLS), []
    for name in shown_curves(siblings):
        # A looser rule may cost some detection its object: the bands do not run backwards.
        high = np.maximum(low, means[name])
        label = f"{name} {means[name].mean():.3f}"
        bands.append(Band(label, low, high, ERROR_COLORS[name]))
        low = high
    return band_plot(unit("recall"), unit("precision"), RECALLS, bands)


def precision_by_iou(analysis: Analysis) -> Html:
    """Precision over recall, mean over the classes, at each IoU."""
    means = mean_over_classes(analysis.precision)
    lines = [
        Line(f"{iou:.2f}: {curve.mean():.3f}", RECALLS, curve, color)
        for iou, curve, color in zip(COCO_IOUS, means, shades(len(COCO_IOUS)), strict=True)
    ]
    return line_plot(unit("recall"), unit("precision"), lines)


def precision_by_class(analysis: Analysis) -> Html:
    """Precision over recall at an IoU of .5 of the classes that do worst, the worst first."""
    means = analysis.precision.mean(axis=(1, 2))
    worst = np.argsort(means, kind="stable")[: min(MOST_LINES, int((~np.isnan(means)).sum()))]
    colors = shades(len(worst))
    lines = [
        Line(
            f"{shortened(analysis.names[label])} {analysis.precision[label, 0].mean():.3f}",
            RECALLS,
            analysis.precision[label, 0],
            color,
        )
        for label, color in zip(worst.tolist(), colors, strict=True)
    ]
    return line_plot(unit("recall"), unit("precision"), lines)


def calibration_figure(analysis: Analysis) -> Html:
    """The reliability diagram."""
    found = analysis.calibration
    edges = np.linspace(0, 1, len(found.counts) + 1)
    corners = np.array([0.0, 1.0])
    honest = Line("if scores were precision", corners, corners, "var(--second)", dashed=True)
    return bar_plot(unit("score"), unit("precision"), edges, found.precision, [honest], "precision")


def score_figure(analysis: Analysis) -> Html:
    """How many detections have which score."""
    counts = analysis.calibration.counts
    edges = np.linspace(0, 1, len(counts) + 1)
    height = Axis(0.0, float(counts.max()), "detections", log=False)
    return bar_plot(unit("score"), height, edges, counts.astype(float), [], "detections")


def confusion_figure(analysis: Analysis) -> Html:
    """The confusion matrix, each row divided by its sum."""
    matrix = analysis.confusion
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    cells = [[f"{count:,}" for count in row] for row in matrix.tolist()]
    rows, columns = [*analysis.names, "background"], [*analysis.names, "missed"]
    return matrix_plot(shares, cells, rows, columns, ("object", "detected as"))


def loss_figure(counts: np.ndarray, kind: str) -> Html:
    """Figure 4 of the paper: the cumulative loss over examples of one kind."""
    lines = [
        Line(f"{GAMMA} = {gamma:g}", *cumulative_loss(counts, gamma), color)
        for gamma, color in zip(GAMMAS, shades(len(GAMMAS)), strict=True)
    ]
    return line_plot(
        unit(f"share of the {kind}s, easiest first"), unit("cumulative share of the loss"), lines
    )


def focal_figure() -> Html:
    """Figure 1 of the paper: the loss over p_t."""
    p = np.linspace(0.005, 1 - 1e-6, 400)
    logits, ones = np.log(p / (1 - p)), np.ones_like(p)
    lines = [
        Line(
            f"{GAMMA} = {gamma:g}",
            p,
            np.asarray(focal_loss(logits, ones, gamma=gamma)),
            color,
        )
        for gamma, color in zip(PAPER_GAMMAS, shades(len(PAPER_GAMMAS)), strict=True)
    ]
    return line_plot(
        unit("p_t, the probability of the right answer"), Axis(0.0, 5.0, "loss", log=False), lines
    )
