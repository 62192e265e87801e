"""Kinds of errors and what each costs: COCO's analysis, after Hoiem et al. (ECCV 2012).

Seven curves of precision over recall, each forgiving more than the one before, as the function
`analyze` of COCO's MatlabAPI/CocoEval.m draws them (https://cocodataset.org/#detection-eval, 5):

    C75  as scored at an IoU of .75
    C50  at .50
    Loc  at .10: a box at a wrong place is forgiven
    Sim  and a detection on an object of another class of the same supercategory is not counted
    Oth  nor on an object of any other class
    BG   nor on background: precision is 1 up to the highest recall that Oth reaches
    FN   and nothing is missed: 1 everywhere

What lies between two curves is what the kind of errors costs that the second forgives. Double
detections are among the background errors. Where no class has a sibling, Sim is Loc.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from retinanet_jax.data.records import Categories
from retinanet_jax.reports.analysis.outcomes import AREAS, Results, Truth, class_outcomes
from retinanet_jax.reports.analysis.precision_recall import RECALLS, precision_curves

CURVES = ("C75", "C50", "Loc", "Sim", "Oth", "BG", "FN")
LOOSE_IOU = 0.1


def find_siblings(content: dict[str, Any], categories: Categories) -> list[list[int]]:
    """By label, the other labels of the same supercategory; empty lists where none is told.

    Args:
      content: COCO's instances JSON, whose categories may have a `supercategory`.
    """
    stated = {entry["id"]: entry.get("supercategory") for entry in content["categories"]}
    above = [stated.get(category_id) for category_id in categories.ids]
    return [
        [other for other, name in enumerate(above) if name and name == own and other != label]
        for label, own in enumerate(above)
    ]


def error_curves(
    truth: Truth, results: Results, siblings: Sequence[Sequence[int]], area: str = "all"
) -> Float[np.ndarray, "k 7 101"]:
    """By class, the seven CURVES at COCO's 101 recalls; NaN for a class without an object.

    Args:
      siblings: by label, from `find_siblings`.
      area: of AREAS: only objects of this size are to be found.
    """
    labels = range(len(siblings))
    return np.array([_class_curves(truth, results, k, siblings, AREAS[area]) for k in labels])


def _class_curves(truth, results, label, siblings, area) -> Float[np.ndarray, "7 101"]:
    def curves(ious, forgiven=()):
        found = class_outcomes(truth, results, label, ious, forgiven=forgiven, area=area)
        return precision_curves(found)

    others = [other for other in range(len(siblings)) if other != label]
    scored = curves((0.75, 0.5, LOOSE_IOU))
    (similar,) = curves((LOOSE_IOU,), siblings[label]) if siblings[label] else scored[-1:]
    (confused,) = curves((LOOSE_IOU,), others)
    if np.isnan(confused).any():
        return np.full((len(CURVES), len(RECALLS)), np.nan)
    found = (confused > 0).astype(float)
    return np.stack([*scored, similar, confused, found, np.ones_like(found)])
