"""The plots of an analysis, by name."""

import numpy as np
from matplotlib.figure import Figure

from retinanet_jax.core.focal import focal_loss
from retinanet_jax.reports.analysis.analysis_json import GAMMAS
from retinanet_jax.reports.analysis.analyze_checkpoint import Analysis
from retinanet_jax.reports.analysis.calibration import Calibration
from retinanet_jax.reports.analysis.detection_outcomes import COCO_IOUS
from retinanet_jax.reports.analysis.error_curves import CURVES
from retinanet_jax.reports.analysis.loss_distribution import KINDS, cumulative_loss
from retinanet_jax.reports.analysis.precision_curves import RECALLS, mean_over_classes
from retinanet_jax.reports.html_page import shortened
from retinanet_jax.reports.plot_style import COLORS
from retinanet_jax.reports.plots import (
    UNIT,
    Band,
    Line,
    band_plot,
    bar_plot,
    line_plot,
    matrix_plot,
    shades,
)

# Neighbours differ in lightness, for readers who see fewer colors.
ERROR_COLORS = dict(
    zip(
        CURVES,
        ("#1f7f4f", "#93d3a8", "#3b78dc", "#b9a2f2", "#a3306f", "#c9bfae", "#ee8f1f"),
        strict=True,
    )
)
PAPER_GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)  # of figure 1
MAX_LINES = 10
GAMMA = "\N{GREEK SMALL LETTER GAMMA}"


def draw_plots(analysis: Analysis) -> dict[str, Figure]:
    """All plots by name. Those without any data are left out."""
    plots = {
        f"errors_{area}": error_plot(curves, analysis.has_similar)
        for area, curves in analysis.errors.items()
        if not np.isnan(curves).all()
    }
    plots["precision_by_iou"] = precision_by_iou_plot(analysis)
    plots["precision_by_class"] = precision_by_class_plot(analysis)
    if analysis.calibration.counts.sum():
        plots["calibration"] = calibration_plot(analysis.calibration)
        plots["scores"] = score_plot(analysis.calibration)
    plots["confusion"] = confusion_plot(analysis)
    for kind, counts in zip(KINDS, analysis.loss.logits, strict=True):
        if counts.any():
            plots[f"loss_of_{kind}s"] = cumulative_loss_plot(counts, kind)
    plots["focal_loss"] = focal_loss_plot()
    return plots


def shown_curves(has_similar: bool) -> list[str]:
    """The error curves to show. Without supercategories, Sim equals Loc and is left out."""
    return [name for name in CURVES if has_similar or name != "Sim"]


def error_plot(curves: np.ndarray, has_similar: bool) -> Figure:
    """The seven error curves, mean over the classes, as stacked bands."""
    means = dict(zip(CURVES, mean_over_classes(curves), strict=True))
    low, bands = np.zeros_like(RECALLS), []
    for name in shown_curves(has_similar):
        # A looser rule can cost a detection its object, so that a curve falls below the one before.
        high = np.maximum(low, means[name])
        bands.append(Band(f"{name} {means[name].mean():.3f}", low, high, ERROR_COLORS[name]))
        low = high
    return band_plot(RECALLS, bands, "recall", "precision")


def precision_by_iou_plot(analysis: Analysis) -> Figure:
    """Precision over recall, mean over the classes, at each IoU."""
    means = mean_over_classes(analysis.precision)
    lines = [
        Line(f"{iou:.2f}: {curve.mean():.3f}", RECALLS, curve, color)
        for iou, curve, color in zip(COCO_IOUS, means, shades(len(COCO_IOUS)), strict=True)
    ]
    return line_plot(lines, "recall", "precision", x_limits=UNIT, y_limits=UNIT)


def precision_by_class_plot(analysis: Analysis) -> Figure:
    """Precision over recall at an IoU of .5 for the classes of lowest AP, the lowest first."""
    means = analysis.precision.mean(axis=(1, 2))
    worst = np.argsort(means, kind="stable")[: min(MAX_LINES, int((~np.isnan(means)).sum()))]
    curves = [(analysis.names[label], analysis.precision[label, 0]) for label in worst.tolist()]
    lines = [
        Line(f"{shortened(name)} {curve.mean():.3f}", RECALLS, curve, color)
        for (name, curve), color in zip(curves, shades(len(curves)), strict=True)
    ]
    return line_plot(lines, "recall", "precision", x_limits=UNIT, y_limits=UNIT)


def calibration_plot(found: Calibration) -> Figure:
    """The reliability diagram."""
    edges, corners = np.linspace(0, 1, len(found.counts) + 1), np.array([0.0, 1.0])
    perfect = Line("perfect calibration", corners, corners, COLORS["second"], dashed=True)
    names = ("precision", [perfect], "score", "precision")
    return bar_plot(edges, found.precision, *names, y_limits=UNIT)


def score_plot(found: Calibration) -> Figure:
    """Number of detections by score."""
    edges = np.linspace(0, 1, len(found.counts) + 1)
    return bar_plot(edges, found.counts.astype(float), "detections", [], "score", "detections")


def confusion_plot(analysis: Analysis) -> Figure:
    """The confusion matrix. Shades are shares of a row."""
    matrix = analysis.confusion
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    cells = [[f"{count:,}" for count in row] for row in matrix.tolist()]
    # Parentheses: a class may be named background, too.
    rows, columns = [*analysis.names, "(background)"], [*analysis.names, "(missed)"]
    return matrix_plot(shares, cells, rows, columns, ("object", "detected as"))


def cumulative_loss_plot(counts: np.ndarray, kind: str) -> Figure:
    """Figure 4 of the paper: the cumulative loss over the examples of one of KINDS."""
    lines = [
        Line(f"{GAMMA} = {gamma:g}", *cumulative_loss(counts, gamma), color)
        for gamma, color in zip(GAMMAS, shades(len(GAMMAS)), strict=True)
    ]
    labels = (f"share of the {kind}s, easiest first", "cumulative share of the loss")
    return line_plot(lines, *labels, x_limits=UNIT, y_limits=UNIT)


def focal_loss_plot() -> Figure:
    """Figure 1 of the paper: the focal loss over p_t."""
    p = np.linspace(0.005, 1 - 1e-6, 400)
    logits, ones = np.log(p / (1 - p)), np.ones_like(p)
    lines = [
        Line(f"{GAMMA} = {gamma:g}", p, np.asarray(focal_loss(logits, ones, gamma=gamma)), color)
        for gamma, color in zip(PAPER_GAMMAS, shades(len(PAPER_GAMMAS)), strict=True)
    ]
    x_label = "p_t, the probability of the correct answer"
    return line_plot(lines, x_label, "loss", x_limits=UNIT, y_limits=(0.0, 5.0))
