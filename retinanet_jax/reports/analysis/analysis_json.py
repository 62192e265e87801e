"""The numbers of an analysis as a JSON tree."""

import math
from typing import Any

import numpy as np

from retinanet_jax.reports.analysis.analyze_checkpoint import Analysis
from retinanet_jax.reports.analysis.calibration import Calibration
from retinanet_jax.reports.analysis.detection_outcomes import COCO_IOUS
from retinanet_jax.reports.analysis.error_curves import CURVES
from retinanet_jax.reports.analysis.loss_distribution import KINDS, hardest_share
from retinanet_jax.reports.analysis.precision_curves import mean_over_classes

GAMMAS = (0.0, 0.5, 1.0, 2.0)  # of figure 4 of the paper
SHARES = (0.01, 0.1, 0.2)  # the paper quotes the last one


def to_json_tree(analysis: Analysis) -> dict[str, Any]:
    """All numbers except the points of the curves; None for a number that is undefined.

    Classes are a list, so that no name of a class can collide with another key or class. In the
    confusion matrix, the row and the column after the last class are background and missed.
    """
    tree = {
        "run": analysis.run,
        "step": analysis.step,
        "dataset": analysis.dataset,
        "images": analysis.images,
        "images_of_split": analysis.total,
        "detections": analysis.detections,
        "summary": analysis.summary,
        "errors": {
            area: _curve_areas(mean_over_classes(curves))
            for area, curves in analysis.errors.items()
        },
        "calibration": _calibration(analysis.calibration),
        "classes": [_class_numbers(analysis, label) for label in range(len(analysis.names))],
        "confusion_matrix": analysis.confusion.tolist(),
        "loss": level_rows(analysis),
        "hardest_examples": hardest_shares(analysis),
    }
    return _defined(tree)


def level_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """Per level, then for all levels: numbers of anchors, and the part of the loss.

    Losses are divided by the positives of all levels, so that levels add up to the loss of all
    images. The box loss is without box_weight.
    """
    loss, levels = analysis.loss, analysis.config.anchors.levels
    columns = {name: getattr(loss, name) for name in ("anchors", "positives", "ignored")}
    positives = max(1, int(loss.positives.sum()))
    columns |= {name: getattr(loss, name) / positives for name in ("class_loss", "box_loss")}
    rows = [
        {"level": f"P{level}", **{name: values[i].item() for name, values in columns.items()}}
        for i, level in enumerate(levels)
    ]
    return [*rows, {"level": "all", **{k: values.sum().item() for k, values in columns.items()}}]


def hardest_shares(analysis: Analysis) -> dict[str, Any]:
    """Per kind, the number of examples and, by gamma, the loss share of the hardest SHARES."""
    return {
        kind: {
            "examples": int(counts.sum()),
            **{
                f"gamma {gamma:g}": {
                    f"hardest {share:.0%}": hardest_share(counts, gamma, share) for share in SHARES
                }
                for gamma in GAMMAS
            },
        }
        for kind, counts in zip(KINDS, analysis.loss.logits, strict=True)
    }


def _class_numbers(analysis: Analysis, label: int) -> dict[str, Any]:
    ap_by_iou = analysis.precision[label].mean(axis=1)
    return {
        "name": analysis.names[label],
        "objects": analysis.objects[label],
        "AP": ap_by_iou.mean(),
        "AP_by_iou": {f"{iou:.2f}": ap for iou, ap in zip(COCO_IOUS, ap_by_iou, strict=True)},
        "errors": {area: _curve_areas(curves[label]) for area, curves in analysis.errors.items()},
        "calibration": _calibration(analysis.class_calibration[label]),
    }


def _curve_areas(curves: np.ndarray) -> dict[str, float]:
    """The areas under the seven curves."""
    return dict(zip(CURVES, curves.mean(axis=-1).tolist(), strict=True))


def _calibration(found: Calibration) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in found._asdict().items()}


def _defined(value: Any) -> Any:
    """Plain Python numbers; None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _defined(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_defined(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
