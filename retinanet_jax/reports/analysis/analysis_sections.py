"""The sections of the analysis page."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from retinanet_jax.reports.analysis.analysis_json import (
    GAMMAS,
    SHARES,
    hardest_shares,
    level_rows,
)
from retinanet_jax.reports.analysis.analysis_plots import (
    ERROR_COLORS,
    GAMMA,
    MAX_LINES,
    shown_curves,
)
from retinanet_jax.reports.analysis.analyze_checkpoint import Analysis
from retinanet_jax.reports.analysis.error_curves import CURVES
from retinanet_jax.reports.analysis.loss_distribution import KINDS
from retinanet_jax.reports.analysis.precision_curves import mean_over_classes
from retinanet_jax.reports.html_page import Html, color_keys, join, share_bar, table, tag
from retinanet_jax.reports.plot_style import inline_svg

MAX_ROWS = 20  # of a table by class; the JSON file has all classes
MIN_DETECTIONS = 20  # of a class, for its calibration to mean anything
MAX_CONFUSIONS = 20

CURVE_MEANINGS = {
    "C75": "correct at an IoU of .75",
    "C50": "inaccurate boxes (IoU of .5 to .75)",
    "Loc": "inaccurate boxes (IoU of .1 to .5)",
    "Sim": "similar class, of the same supercategory",
    "Oth": "other class",
    "BG": "background and duplicates",
    "FN": "missed objects",
}
LOSS_COLORS = {"class loss": "var(--accent)", "box loss": "var(--second)"}
Plots = dict[str, Figure]


def errors_section(analysis: Analysis, plots: Plots) -> Html:
    """COCO's analysis of errors: curves by size of the objects, and a table by class."""
    shown = shown_curves(analysis.has_similar)
    keys = {f"{name}: {CURVE_MEANINGS[name]}": ERROR_COLORS[name] for name in shown}
    text = (
        "COCO's analysis of errors. The lowest band is the precision at an IoU of .75. Each band "
        "above it shows how much precision one kind of error costs. The numbers are the average "
        "precision after removing this kind of error and all kinds below it."
    )
    captions = {f"errors_{area}": f"Errors: {area} objects" for area in analysis.errors}
    return join(
        [
            tag("p", text, class_="soft"),
            color_keys(keys),
            _plot_grid(plots, captions),
            tag("h3", "By class, lowest AP first"),
            _error_table(analysis, shown),
        ]
    )


def _error_table(analysis: Analysis, shown: Sequence[str]) -> Html:
    curves = analysis.errors["all"]
    indices = [CURVES.index(name) for name in shown]
    # In bold: a class may be named so, too.
    named = [(tag("b", "mean of the classes"), mean_over_classes(curves))]
    order = _lowest_first(analysis.precision.mean(axis=(1, 2)))
    named += [(analysis.names[label], curves[label]) for label in order]
    rows = []
    for name, row in named:
        areas = np.maximum.accumulate(row.mean(axis=-1)[indices])
        gains = np.diff(areas, prepend=0.0).tolist()
        bar = share_bar(gains, [ERROR_COLORS[kind] for kind in shown], wide=True)
        numbers = [f"{areas[1]:.3f}", f"{areas[0]:.3f}", *(f"+{gain:.3f}" for gain in gains[2:])]
        rows.append((name, bar, *numbers))
    head = ("class", "", "AP50", "AP75", *(f"+ {name}" for name in shown[2:]))
    return join([table(head, rows), _note_on_rows(analysis)])


def curves_section(analysis: Analysis, plots: Plots) -> Html:
    """Precision over recall by IoU and by class."""
    classes = "all classes"
    if len(analysis.names) > MAX_LINES:
        classes = f"the {MAX_LINES} classes with the lowest AP"
    captions = {
        "precision_by_iou": "By IoU, mean over the classes, with AP",
        "precision_by_class": f"At an IoU of .5, {classes}, with AP50",
    }
    return _plot_grid(plots, captions)


def calibration_section(analysis: Analysis, plots: Plots) -> Html:
    """The reliability diagram, and a table by class."""
    if "calibration" not in plots:
        return tag("p", "There are no detections.")
    found = analysis.calibration
    text = (
        "Are 80% of the detections with a score of .8 correct? Correct means an IoU of .5, as in "
        f"COCO's AP50. The expected calibration error is {found.expected_error:.3f} over "
        f"{len(found.counts)} bins. On average, scores are {abs(found.bias):.3f} too "
        f"{'high' if found.bias > 0 else 'low'}. AP depends only on the order of the scores."
    )
    captions = {
        "calibration": "Precision of the detections by score",
        "scores": f"Scores of all {int(found.counts.sum()):,} detections",
    }
    return join(
        [
            tag("p", text, class_="soft"),
            _plot_grid(plots, captions),
            tag("h3", f"Classes with {MIN_DETECTIONS} detections or more, largest error first"),
            _calibration_table(analysis),
        ]
    )


def _calibration_table(analysis: Analysis) -> Html:
    found = analysis.class_calibration
    errors = np.array(
        [c.expected_error if c.counts.sum() >= MIN_DETECTIONS else np.nan for c in found]
    )
    rows = [
        (
            analysis.names[label],
            f"{int(found[label].counts.sum()):,}",
            f"{found[label].expected_error:.3f}",
            f"{found[label].largest_error:.3f}",
            f"{found[label].bias:+.3f}",
        )
        for label in _lowest_first(-errors)
    ]
    head = ("class", "detections", "expected error", "largest error of a bin", "score - precision")
    return join([table(head, rows), _note_on_rows(analysis)])


def confusion_section(analysis: Analysis, plots: Plots) -> Html:
    """The matrix and the most frequent confusions."""
    matrix, names = analysis.confusion, analysis.names
    text = (
        f"Detections with a score of {analysis.config.evaluation.example_min_score:g} or more and "
        "an IoU of .5 or more. Detections are first matched to objects of their own class, then to "
        "the remaining objects. Shades are shares of a row. The last row contains detections of "
        "background and duplicates, the last column the objects without a detection."
    )
    wrong = matrix[:-1, :-1] - np.diag(np.diag(matrix)[:-1])
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    pairs = [np.unravel_index(place, wrong.shape) for place in order.tolist()]
    rows = [
        (names[i], names[j], f"{wrong[i, j]:,}", f"{wrong[i, j] / matrix[i].sum():.1%}")
        for i, j in pairs
        if wrong[i, j]
    ]
    head = ("object", "detected as", "times", "of these objects")
    most = table(head, rows) if rows else tag("p", "No object was detected as another class.")
    return join(
        [
            tag("p", text, class_="soft"),
            tag("figure", inline_svg(plots["confusion"], "Confusion matrix")),
            tag("h3", "Most frequent confusions"),
            most,
        ]
    )


def levels_section(analysis: Analysis) -> Html:
    """Losses and positives by level."""
    text = (
        "The training loss over all images, without augmentation, divided by the number of "
        "positives, so that the levels add up. Anchors are means per image."
    )
    *levels, total = level_rows(analysis)
    largest = max(row["class_loss"] + row["box_loss"] for row in levels) or 1.0
    rows = []
    for row in (*levels, total):
        losses = (row["class_loss"], row["box_loss"])
        bar = None
        if row is not total:
            bar = share_bar([loss / largest for loss in losses], LOSS_COLORS.values(), wide=True)
        counts = [row[name] / analysis.images for name in ("anchors", "ignored", "positives")]
        share = row["positives"] / max(1, total["positives"])
        numbers = (*(f"{loss:.4f}" for loss in losses), *(f"{count:,.1f}" for count in counts))
        rows.append((row["level"], bar, *numbers, f"{share:.1%}"))
    head = ("level", "", "class loss", "box loss", "anchors", "ignored", "positives", "of all")
    return join([tag("p", text, class_="soft"), color_keys(LOSS_COLORS), table(head, rows)])


def distribution_section(analysis: Analysis, plots: Plots) -> Html:
    """Figures 4 and 1 of the paper, and the shares of the loss in numbers."""
    text = (
        "Figure 4 of the RetinaNet paper: the cumulative loss of the positives and of the "
        "negatives, from the easiest to the hardest example. The closer a line runs to the bottom "
        "right corner, the fewer examples the loss comes from. An example is a positive anchor's "
        "decision on its own class, or a background anchor's decision on one class. The network "
        f"was trained with {GAMMA} = {analysis.config.loss.gamma:g}."
    )
    captions = {
        "loss_of_positives": "Loss of the positives",
        "loss_of_negatives": "Loss of the negatives",
        "focal_loss": "Figure 1 of the paper: the focal loss",
    }
    return join(
        [
            tag("p", text, class_="soft"),
            _plot_grid(plots, captions),
            tag("h3", "Share of the loss from the hardest examples"),
            _share_table(analysis),
        ]
    )


def _share_table(analysis: Analysis) -> Html:
    found, rows = hardest_shares(analysis), []
    for kind in KINDS:
        examples = found[kind]["examples"]
        for gamma in GAMMAS if examples else ():
            shares = found[kind][f"gamma {gamma:g}"].values()
            name = f"{examples:,} {kind}s" if gamma == GAMMAS[0] else ""
            rows.append((name, f"{gamma:g}", *(f"{share:.1%}" for share in shares)))
    head = ("examples", GAMMA, *(f"hardest {share:.0%}" for share in SHARES))
    return table(head, rows)


def _plot_grid(plots: Plots, captions: dict[str, str]) -> Html:
    """The plots that exist, with their captions."""
    figures = [
        tag("figure", inline_svg(plots[name], text), tag("figcaption", text))
        for name, text in captions.items()
        if name in plots
    ]
    return tag("div", figures, class_="charts plots")


def _lowest_first(values: np.ndarray) -> list[int]:
    """The MAX_ROWS labels of the lowest values, without those whose value is NaN."""
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    return order[:MAX_ROWS].tolist()


def _note_on_rows(analysis: Analysis) -> Html | None:
    if len(analysis.names) <= MAX_ROWS:
        return None
    text = f"{MAX_ROWS} of {len(analysis.names)} classes. The JSON file contains all of them."
    return tag("p", text, class_="soft")
