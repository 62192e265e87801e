"""Sections of the page on a checkpoint."""

from collections.abc import Sequence

import numpy as np

from retinanet_jax.reports.analysis.analysis_figures import (
    ERROR_COLORS,
    GAMMA,
    MOST_LINES,
    shown_curves,
)
from retinanet_jax.reports.analysis.analyze_checkpoint import Analysis
from retinanet_jax.reports.analysis.as_json import GAMMAS, SHARES, hardest_shares, level_rows
from retinanet_jax.reports.analysis.error_kinds import CURVES
from retinanet_jax.reports.analysis.loss_distribution import KINDS
from retinanet_jax.reports.analysis.precision_recall import mean_over_classes
from retinanet_jax.reports.html.document import table
from retinanet_jax.reports.html.markup import Html, join, tag

MOST_ROWS = 20  # of a table by class; the numbers beside the page have all
FEW = 20  # fewer detections of a class say nothing about its calibration

EXPLAINED = {
    "C75": "right at an IoU of .75",
    "C50": "right at .5 only",
    "Loc": "boxes at a wrong place: right at .1",
    "Sim": "similar class, of the same supercategory, at .1",
    "Oth": "another class, at .1",
    "BG": "background, and objects found twice",
    "FN": "missed",
}
LOSS_COLORS = ("var(--accent)", "var(--second)")
Figures = dict[str, Html]


def errors_section(analysis: Analysis, figures: Figures) -> Html:
    """COCO's analysis of errors: curves by size, and a bar for each class."""
    shown = shown_curves(analysis.siblings)
    keys = [
        tag(
            "span",
            tag("i", style=f"background:{ERROR_COLORS[name]}"),
            f"{name}: {EXPLAINED[name]}",
            class_="key",
        )
        for name in shown
    ]
    text = (
        "COCO's analysis. The lowest band is the precision as scored; each further one is what "
        "the next kind of errors costs, if those before it are forgiven. Numbers are areas: "
        "average precision if all errors up to there are forgiven."
    )
    captions = {f"errors_{area}": f"{area} objects" for area in analysis.errors}
    return join(
        [
            tag("p", text, class_="soft"),
            tag("p", keys, class_="keys"),
            _charts(figures, captions),
            tag("h3", "By class, worst first"),
            _error_table(analysis, shown),
        ]
    )


def _error_table(analysis: Analysis, shown: Sequence[str]) -> Html:
    curves = analysis.errors["all"]
    places = [CURVES.index(name) for name in shown]
    everything = [("all", mean_over_classes(curves))]
    order = _worst(analysis.precision.mean(axis=(1, 2)))
    classes = [(analysis.names[label], curves[label]) for label in order]
    rows = []
    for name, row in everything + classes:
        areas = np.maximum.accumulate(row.mean(axis=-1)[places])
        gains = np.diff(areas, prepend=0.0).tolist()
        parts = [
            tag("i", style=f"width:{100 * gain:.2f}%;background:{ERROR_COLORS[kind]}")
            for kind, gain in zip(shown, gains, strict=True)
            if gain > 0
        ]
        numbers = [f"{areas[1]:.3f}", f"{areas[0]:.3f}", *(f"+{gain:.3f}" for gain in gains[2:])]
        rows.append((name, tag("span", parts, class_="bar wide"), *numbers))
    head = ("class", "", "AP50", "AP75", *(f"+ {name}" for name in shown[2:]))
    return join([table(head, rows), _left_out(analysis)])


def curves_section(analysis: Analysis, figures: Figures) -> Html:
    """Precision over recall by IoU and by class."""
    classes = "all classes"
    if len(analysis.names) > MOST_LINES:
        classes = f"the {MOST_LINES} classes of lowest AP"
    captions = {
        "precision_by_iou": "By IoU, mean over the classes; with the average precision",
        "precision_by_class": f"At an IoU of .5: {classes}, with AP50",
    }
    return _charts(figures, captions)


def calibration_section(analysis: Analysis, figures: Figures) -> Html:
    """The reliability diagram and the classes with the largest errors."""
    if "calibration" not in figures:
        return tag("p", "There are no detections whose scores could be judged.")
    found = analysis.calibration
    text = (
        f"Of the detections with a score of .8, are 80% right? Right is an IoU of .5, as COCO "
        f"counts. Expected calibration error {found.expected_error:.3f} over {len(found.counts)} "
        f"bins; scores are {_direction(found.bias)} in the mean. AP depends on their order only."
    )
    captions = {
        "calibration": "Reliability: precision of the detections of each bin",
        "scores": f"All {int(found.counts.sum()):,} detections",
    }
    errors = np.array(
        [
            entry.expected_error if entry.counts.sum() >= FEW else np.nan
            for entry in analysis.class_calibration
        ]
    )
    rows = [
        (
            analysis.names[label],
            f"{int(entry.counts.sum()):,}",
            f"{entry.expected_error:.3f}",
            f"{entry.largest_error:.3f}",
            f"{entry.bias:+.3f}",
        )
        for label in _worst(-errors)
        for entry in (analysis.class_calibration[label],)
    ]
    head = ("class", "detections", "expected error", "largest, of a bin", "score less precision")
    return join(
        [
            tag("p", text, class_="soft"),
            _charts(figures, captions),
            tag("h3", f"Classes with {FEW} detections or more, worst first"),
            table(head, rows),
            _left_out(analysis),
        ]
    )


def _direction(bias: float) -> str:
    return f"{abs(bias):.3f} too {'high' if bias > 0 else 'low'}"


def confusion_section(analysis: Analysis, figures: Figures) -> Html:
    """The matrix, and what is confused most often."""
    matrix, names = analysis.confusion, analysis.names
    text = (
        f"Detections with a score of {analysis.config.evaluation.example_min_score:g} or more at "
        "an IoU of .5: first with objects of their class, as COCO counts, then what is left with what "
        "is left. Shades are shares of a row. The last row has detections of background and of "
        "objects that were found already, the last column the objects that nothing found."
    )
    apart = matrix[:-1, :-1] - np.diag(np.diag(matrix)[:-1])
    order = np.argsort(-apart, axis=None, kind="stable")[:10]
    pairs = [np.unravel_index(place, apart.shape) for place in order.tolist()]
    rows = [
        (names[i], names[j], f"{apart[i, j]:,}", f"{apart[i, j] / matrix[i].sum():.1%}")
        for i, j in pairs
        if apart[i, j]
    ]
    head = ("object", "detected as", "times", "of these objects")
    most = table(head, rows) if rows else tag("p", "No class was taken for another.")
    return join(
        [
            tag("p", text, class_="soft"),
            tag("figure", figures["confusion"]),
            tag("h3", "Most often confused"),
            most,
        ]
    )


def levels_section(analysis: Analysis) -> Html:
    """Losses and positives by level."""
    text = (
        "The loss of the whole set as in training, divided by all positives, so that levels add "
        "up; anchors of an image in the mean. Images are not augmented."
    )
    rows = []
    *levels, whole = level_rows(analysis)
    most = max(row["class_loss"] + row["box_loss"] for row in levels) or 1.0
    for row in (*levels, whole):
        positives = row["positives"] / max(1, whole["positives"])
        rows.append(
            (
                row["level"],
                None if row is whole else _loss_bar(row, most),
                f"{row['class_loss']:.4f}",
                f"{row['box_loss']:.4f}",
                *(
                    f"{row[name] / analysis.images:,.1f}"
                    for name in ("anchors", "ignored", "positives")
                ),
                f"{positives:.1%}",
            )
        )
    head = ("level", "", "class loss", "box loss", "anchors", "ignored", "positives", "of all")
    keys = [
        tag("span", tag("i", style=f"background:{color}"), name, class_="key")
        for name, color in zip(("class loss", "box loss"), LOSS_COLORS, strict=True)
    ]
    return join([tag("p", text, class_="soft"), tag("p", keys, class_="keys"), table(head, rows)])


def _loss_bar(row: dict, most: float) -> Html:
    """The losses of a level beside each other, as shares of the largest of any level."""
    parts = [
        tag("i", style=f"width:{100 * row[name] / most:.2f}%;background:{color}")
        for name, color in zip(("class_loss", "box_loss"), LOSS_COLORS, strict=True)
    ]
    return tag("span", parts, class_="bar wide")


def distribution_section(analysis: Analysis, figures: Figures) -> Html:
    """Figures 4 and 1 of the paper, and shares of the loss in numbers."""
    text = (
        "Figure 4 of the paper: the loss of the positives and of the negatives, each adding up to "
        "1, over the examples from the easiest to the hardest. The nearer a line is to the corner "
        "at the bottom right, the fewer examples the network learns from. Every positive anchor's "
        "decision on its class and every background anchor's on all classes are in it; weights are "
        f"those of this checkpoint, trained at {GAMMA} = {analysis.config.loss.gamma:g}."
    )
    captions = {
        "loss_of_positives": "Positives",
        "loss_of_negatives": "Negatives",
        "focal_loss": "Figure 1: the loss of one decision",
    }
    return join(
        [
            tag("p", text, class_="soft"),
            _charts(figures, captions),
            tag("h3", "Share of the loss that comes from the hardest examples"),
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


def _charts(figures: Figures, captions: dict[str, str]) -> Html:
    """Those of some figures that there are, beside each other."""
    drawn = [
        tag("figure", figures[name], tag("figcaption", text))
        for name, text in captions.items()
        if name in figures
    ]
    return tag("div", drawn, class_="charts plots")


def _worst(values: np.ndarray) -> list[int]:
    """Labels by rising value, the MOST_ROWS first; those without a value are left out."""
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    return order[:MOST_ROWS].tolist()


def _left_out(analysis: Analysis) -> Html | None:
    if len(analysis.names) <= MOST_ROWS:
        return None
    text = f"Of {len(analysis.names)} classes the {MOST_ROWS} worst; the JSON file has all."
    return tag("p", text, class_="soft")
