"""One HTML page on a checkpoint: self-contained, to be looked at after training."""

import itertools

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.reports.analysis.analysis_figures import GAMMA, shown_curves
from retinanet_jax.reports.analysis.analysis_sections import (
    EXPLAINED,
    Figures,
    calibration_section,
    confusion_section,
    curves_section,
    distribution_section,
    errors_section,
    levels_section,
)
from retinanet_jax.reports.analysis.analyze_checkpoint import Analysis
from retinanet_jax.reports.analysis.error_kinds import CURVES
from retinanet_jax.reports.analysis.loss_distribution import KINDS, hardest_share
from retinanet_jax.reports.analysis.precision_recall import mean_over_classes
from retinanet_jax.reports.html.document import Section, document, findings_list
from retinanet_jax.reports.html.markup import Html, join, tag
from retinanet_jax.training.data_findings import Finding

FEW_IMAGES = 100  # on fewer, one object moves the numbers visibly


def render(analysis: Analysis, figures: Figures) -> str:
    """The page; `figures` are those of figures.draw_figures."""
    sections = [
        Section("In short", "short", join([_tiles(analysis), _known(analysis)])),
        Section("Kinds of errors", "errors", errors_section(analysis, figures)),
        Section("Precision and recall", "curves", curves_section(analysis, figures)),
        Section("Calibration", "calibration", calibration_section(analysis, figures)),
        Section("Confusions", "confusions", confusion_section(analysis, figures)),
        Section("Loss by level", "levels", levels_section(analysis)),
        Section("Loss by difficulty", "difficulty", distribution_section(analysis, figures)),
    ]
    lead = (
        f"{analysis.run}, step {analysis.step:,}, on {analysis.dataset}: {analysis.images:,} "
        f"images, {sum(analysis.objects):,} objects, {analysis.detections:,} detections."
    )
    if analysis.config.data.name.startswith("voc"):
        lead += " Objects marked difficult count as COCO's crowds."
    return document("A look after training", analysis.run, lead, sections)


def _tiles(analysis: Analysis) -> Html:
    gamma, negatives = analysis.config.loss.gamma, analysis.measures.logits[KINDS.index("negative")]
    hardest = hardest_share(negatives, gamma, 0.01)
    error = analysis.calibration.expected_error
    tiles = [
        (f"{analysis.summary['AP']:.3f}", "average precision (COCO's AP)"),
        (f"{analysis.summary['AP50']:.3f}", "at an IoU of .5 (AP50)"),
        ("none" if np.isnan(error) else f"{error:.3f}", "expected calibration error"),
        (
            "none" if np.isnan(hardest) else f"{hardest:.0%}",
            f"of the loss of the negatives is that of the hardest 1%, at {GAMMA} = {gamma:g}",
        ),
    ]
    drawn = [tag("div", tag("b", number), text, class_="tile") for number, text in tiles]
    return tag("div", drawn, class_="tiles")


def _known(analysis: Analysis) -> Html | None:
    """What a person should know before reading on."""
    found = findings(analysis)
    return findings_list(found) if found else None


def findings(analysis: Analysis) -> list[Finding]:
    """What a person should know, in words, with what to do."""
    found = [
        _no_detections(analysis),
        _sample(analysis),
        _costliest(analysis),
        _levels(analysis),
    ]
    return [finding for finding in found if finding is not None]


def _no_detections(analysis: Analysis) -> Finding | None:
    if analysis.detections:
        return None
    threshold = analysis.config.postprocess.score_threshold
    problem = f"Nothing was detected: no score is above {threshold:g}. The curves are empty."
    fix = "Train longer, or look lower: --config.postprocess.score_threshold=0.001"
    return Finding(problem, fix)


def _sample(analysis: Analysis) -> Finding | None:
    if analysis.images < analysis.total:
        problem = f"{analysis.images:,} of {analysis.total:,} images were looked at."
        return Finding(problem, f"--max_images={analysis.total} takes all.")
    if analysis.images < FEW_IMAGES:
        problem = f"There are {analysis.images} images only: small differences mean nothing."
        return Finding(problem, "Set more images aside for evaluation.")
    return None


def _costliest(analysis: Analysis) -> Finding | None:
    """Of the kinds of errors, the one that costs most average precision at an IoU of .75."""
    areas = dict(
        zip(CURVES, mean_over_classes(analysis.errors["all"]).mean(axis=1).tolist(), strict=True)
    )
    shown = shown_curves(analysis.siblings)
    costs = {after: areas[after] - areas[before] for before, after in itertools.pairwise(shown)}
    worst = max(costs, key=costs.get)
    if not analysis.detections or costs[worst] <= 0:
        return None
    problem = (
        f"What costs most: {EXPLAINED[worst]} ({worst}), {costs[worst]:.3f} of average precision."
    )
    return Finding(problem, _error_fix(worst, analysis.config))


def _error_fix(kind: str, config: Config) -> str:
    """What may help against a kind of errors."""
    if kind in ("C50", "Loc"):
        fix = "Boxes are not tight: try larger images or anchors nearer to the shapes of objects"
        if config.loss.box == "giou":
            return fix + ", which retinanet-jax inspect --fit_anchors searches."
        return fix + ", or --config.loss.box=giou"
    if kind in ("Sim", "Oth"):
        return "See below which classes are confused, and whether their annotations agree."
    if kind == "BG":
        return "Look at confident detections of background: are these objects without annotation?"
    return "Train longer; retinanet-jax inspect tells which objects no anchor covers."


def _levels(analysis: Analysis) -> Finding | None:
    """Levels that learn nothing."""
    levels, positives = analysis.config.anchors.levels, analysis.measures.positives
    idle = [f"P{level}" for level, count in zip(levels, positives, strict=True) if not count]
    if not idle:
        return None
    verb = "has" if len(idle) == 1 else "have"
    problem = f"{', '.join(idle)} {verb} no positive anchor: no object here is of that size."
    return Finding(problem, "retinanet-jax inspect --fit_anchors searches anchors that fit.")
