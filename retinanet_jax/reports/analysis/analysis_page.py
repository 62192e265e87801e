"""The analysis page: one self-contained HTML page about a checkpoint, for after training."""

import itertools

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.reports.analysis.analysis_plots import GAMMA, shown_curves
from retinanet_jax.reports.analysis.analysis_sections import (
    CURVE_MEANINGS,
    Plots,
    calibration_section,
    confusion_section,
    curves_section,
    distribution_section,
    errors_section,
    levels_section,
)
from retinanet_jax.reports.analysis.analyze_checkpoint import Analysis
from retinanet_jax.reports.analysis.detection_outcomes import MAX_DETECTIONS
from retinanet_jax.reports.analysis.error_curves import CURVES
from retinanet_jax.reports.analysis.loss_distribution import KINDS, hardest_share
from retinanet_jax.reports.analysis.precision_curves import mean_over_classes
from retinanet_jax.reports.html_page import Html, Section, document, findings_list, join, tag
from retinanet_jax.training.finding import Finding

MIN_IMAGES = 100  # with fewer, a single object changes the numbers visibly


def render_analysis(analysis: Analysis, plots: Plots) -> str:
    """The HTML page. `plots` are from `analysis_plots.draw_plots`."""
    sections = [
        Section("Summary", "summary", join([_tiles(analysis), _findings(analysis)])),
        Section("Kinds of errors", "errors", errors_section(analysis, plots)),
        Section("Precision and recall", "curves", curves_section(analysis, plots)),
        Section("Calibration", "calibration", calibration_section(analysis, plots)),
        Section("Confusions", "confusions", confusion_section(analysis, plots)),
        Section("Loss by level", "levels", levels_section(analysis)),
        Section("Loss by difficulty", "difficulty", distribution_section(analysis, plots)),
    ]
    return document("Analysis of a checkpoint", analysis.run, _lead(analysis), sections)


def _lead(analysis: Analysis) -> str:
    lead = (
        f"{analysis.run}, step {analysis.step:,}, on {analysis.dataset}: {analysis.images:,} "
        f"images, {sum(analysis.objects):,} objects, {analysis.detections:,} detections."
    )
    if analysis.config.postprocess.max_detections > MAX_DETECTIONS:
        lead += f" COCO's metric counts {MAX_DETECTIONS} detections per class and image."
    if analysis.config.data.name.startswith("voc"):
        lead += " Objects marked difficult are ignored, like COCO's crowds."
    return lead


def _tiles(analysis: Analysis) -> Html:
    gamma, negatives = analysis.config.loss.gamma, analysis.loss.logits[KINDS.index("negative")]
    hardest = hardest_share(negatives, gamma, 0.01)
    error = analysis.calibration.expected_error
    tiles = [
        (f"{analysis.summary['AP']:.3f}", "AP: COCO's average precision"),
        (f"{analysis.summary['AP50']:.3f}", "AP50: at an IoU of .5"),
        ("-" if np.isnan(error) else f"{error:.3f}", "expected calibration error"),
        (
            "-" if np.isnan(hardest) else f"{hardest:.0%}",
            f"of the negatives' loss comes from the hardest 1% ({GAMMA} = {gamma:g})",
        ),
    ]
    drawn = [tag("div", tag("b", number), text, class_="tile") for number, text in tiles]
    return tag("div", drawn, class_="tiles")


def _findings(analysis: Analysis) -> Html | None:
    findings = find_problems(analysis)
    return findings_list(findings) if findings else None


def find_problems(analysis: Analysis) -> list[Finding]:
    """The most important problems, with their fixes."""
    findings = [
        _no_detections(analysis),
        _few_images(analysis),
        _costliest_error(analysis),
        _unused_levels(analysis),
    ]
    return [finding for finding in findings if finding is not None]


def _no_detections(analysis: Analysis) -> Finding | None:
    if analysis.detections:
        return None
    threshold = analysis.config.postprocess.score_threshold
    problem = f"No detections: all scores are {threshold:g} or less."
    fix = "Train longer, or lower the threshold: --config.postprocess.score_threshold=0.001"
    return Finding(problem, fix)


def _few_images(analysis: Analysis) -> Finding | None:
    if analysis.images < analysis.total:
        problem = f"Only {analysis.images:,} of {analysis.total:,} images were analyzed."
        return Finding(problem, f"To analyze all: --max_images={analysis.total}")
    if analysis.images < MIN_IMAGES:
        count = "1 image" if analysis.images == 1 else f"{analysis.images} images"
        problem = f"The split has only {count}: small differences mean nothing."
        return Finding(problem, "Use more images for evaluation.")
    return None


def _costliest_error(analysis: Analysis) -> Finding | None:
    """The kind of error that costs the most average precision at an IoU of .75."""
    areas = dict(
        zip(CURVES, mean_over_classes(analysis.errors["all"]).mean(axis=1).tolist(), strict=True)
    )
    shown = shown_curves(analysis.has_similar)
    costs = {after: areas[after] - areas[before] for before, after in itertools.pairwise(shown)}
    worst = max(costs, key=costs.get)
    if not analysis.detections or costs[worst] <= 0:
        return None
    problem = f"Largest source of errors: {CURVE_MEANINGS[worst]} ({worst}), {costs[worst]:.3f} AP."
    return Finding(problem, _error_fix(worst, analysis.config))


def _error_fix(kind: str, config: Config) -> str:
    """What may help against a kind of error."""
    if kind in ("C50", "Loc"):
        fix = "Try larger images, or anchors that fit better: retinanet-jax inspect --fit_anchors"
        if config.loss.box != "giou":
            fix += "; or try --config.loss.box=giou"
        return fix
    if kind in ("Sim", "Oth"):
        return "See below which classes are confused, and check their annotations."
    if kind == "BG":
        return "Look at detections of background with high scores: are these unannotated objects?"
    return "Train longer. retinanet-jax inspect shows the objects that no anchor covers."


def _unused_levels(analysis: Analysis) -> Finding | None:
    """Levels of the pyramid without positive anchors."""
    levels, positives = analysis.config.anchors.levels, analysis.loss.positives
    unused = [f"P{level}" for level, count in zip(levels, positives, strict=True) if not count]
    if not unused:
        return None
    verb = "has" if len(unused) == 1 else "have"
    problem = f"{', '.join(unused)} {verb} no positive anchors: no object here has this size."
    return Finding(problem, "To search for anchors that fit: retinanet-jax inspect --fit_anchors")
