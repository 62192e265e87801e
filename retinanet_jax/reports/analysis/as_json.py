"""The numbers of an analysis for other programs: a tree for JSON, names instead of places."""

import math
from typing import Any

import numpy as np

from retinanet_jax.reports.analysis.analyze_checkpoint import Analysis
from retinanet_jax.reports.analysis.calibration import Calibration
from retinanet_jax.reports.analysis.error_kinds import CURVES
from retinanet_jax.reports.analysis.loss_distribution import KINDS, hardest_share
from retinanet_jax.reports.analysis.outcomes import COCO_IOUS
from retinanet_jax.reports.analysis.precision_recall import mean_over_classes

GAMMAS = (0.0, 0.5, 1.0, 2.0)  # of the paper's figure 4
SHARES = (0.01, 0.1, 0.2)  # the paper speaks of the last


def as_tree(analysis: Analysis) -> dict[str, Any]:
    """Everything but the curves' single points; None where a number is not defined."""
    names = [*analysis.names, "background"]
    tree = {
        "run": analysis.run,
        "step": analysis.step,
        "dataset": analysis.dataset,
        "images": analysis.images,
        "images_of_split": analysis.total,
        "objects": dict(zip(names, analysis.objects, strict=False)),
        "detections": analysis.detections,
        "summary": analysis.summary,
        "average_precision": _average_precision(analysis),
        "errors": {
            area: {
                "mean": _areas(mean_over_classes(curves)),
                **_by_name(names, map(_areas, curves)),
            }
            for area, curves in analysis.errors.items()
        },
        "calibration": {
            "all": _calibration(analysis.calibration),
            **_by_name(names, map(_calibration, analysis.class_calibration)),
        },
        "confusion": {"names": names, "matrix": analysis.confusion.tolist()},
        "loss": level_rows(analysis),
        "hardest_examples": hardest_shares(analysis),
    }
    return _defined(tree)


def level_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """By level, and in all: anchors by kind, and what each level adds to the loss of the whole set.

    Losses are divided by the positives of all levels, the box loss without box_weight.
    """
    measures, levels = analysis.measures, analysis.config.anchors.levels
    columns = {name: getattr(measures, name) for name in ("anchors", "positives", "ignored")}
    whole = max(1, int(measures.positives.sum()))
    columns |= {name: getattr(measures, name) / whole for name in ("class_loss", "box_loss")}
    rows = [
        {"level": f"P{level}", **{name: values[i].item() for name, values in columns.items()}}
        for i, level in enumerate(levels)
    ]
    return [*rows, {"level": "all", **{k: values.sum().item() for k, values in columns.items()}}]


def hardest_shares(analysis: Analysis) -> dict[str, Any]:
    """Examples of each kind, and by gamma the shares of the loss of the hardest SHARES of them."""
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
        for kind, counts in zip(KINDS, analysis.measures.logits, strict=True)
    }


def _average_precision(analysis: Analysis) -> dict[str, Any]:
    """By class: AP over all IoUs, and at each."""
    means = analysis.precision.mean(axis=2)
    keys = [f"{iou:.2f}" for iou in COCO_IOUS]
    rows = [{"AP": row.mean(), **dict(zip(keys, row, strict=True))} for row in means]
    return _by_name(analysis.names, rows)


def _areas(curves: np.ndarray) -> dict[str, float]:
    """The areas under the seven curves of one class."""
    return dict(zip(CURVES, curves.mean(axis=-1).tolist(), strict=True))


def _calibration(found: Calibration) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in found._asdict().items()}


def _by_name(names, values) -> dict[str, Any]:
    """Values by class; of classes of the same name, those after the first are numbered."""
    tree: dict[str, Any] = {}
    for label, (name, value) in enumerate(zip(names, values, strict=False)):
        tree[name if name not in tree else f"{name} ({label})"] = value
    return tree


def _defined(value: Any) -> Any:
    """Plain numbers; None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _defined(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_defined(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
