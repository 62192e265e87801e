"""The kinds of errors and their cost in precision: COCO's analysis, after Hoiem et al., ECCV 2012.

Seven curves of precision over recall, as the function `analyze` of COCO's MatlabAPI/CocoEval.m
draws them (https://cocodataset.org/#detection-eval, section 5). Each removes one more kind of
error:

    C75  no error removed, at an IoU of .75
    C50  no error removed, at an IoU of .50
    Loc  localization errors removed: an IoU of .10 is enough
    Sim  and detections of objects of a similar class (the same supercategory) ignored
    Oth  and detections of objects of any other class ignored
    BG   and detections of background ignored: precision is 1 up to the highest recall of Oth
    FN   and missed objects ignored: precision is 1 everywhere

The area between two curves is the cost of the kind of errors that the second removes. Duplicate
detections count as background. If no classes share a supercategory, Sim equals Loc.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from retinanet_jax.data.records import Categories
from retinanet_jax.reports.analysis.detection_outcomes import (
    AREAS,
    DetectionTable,
    GroundTruth,
    class_outcomes,
)
from retinanet_jax.reports.analysis.precision_curves import RECALLS, precision_curves

CURVES = ("C75", "C50", "Loc", "Sim", "Oth", "BG", "FN")
LOOSE_IOU = 0.1


def find_similar(content: dict[str, Any], categories: Categories) -> list[list[int]]:
    """Per label, the other labels of the same supercategory; empty lists if there are none.

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
    truth: GroundTruth,
    results: DetectionTable,
    similar: Sequence[Sequence[int]],
    area: str = "all",
) -> Float[np.ndarray, "k 7 101"]:
    """Per class, the seven CURVES at COCO's 101 recalls; NaN for a class without objects.

    Args:
      similar: per label, from `find_similar`.
      area: of AREAS. Objects of other sizes are ignored.
    """
    labels = range(len(similar))
    return np.array([_class_curves(truth, results, k, similar, AREAS[area]) for k in labels])


def _class_curves(truth, results, label, similar, area) -> Float[np.ndarray, "7 101"]:
    def curves(ious, ignored=()):
        found = class_outcomes(truth, results, label, ious, ignored_labels=ignored, area=area)
        return precision_curves(found)

    others = [other for other in range(len(similar)) if other != label]
    scored = curves((0.75, 0.5, LOOSE_IOU))
    (without_similar,) = curves((LOOSE_IOU,), similar[label]) if similar[label] else scored[-1:]
    (without_others,) = curves((LOOSE_IOU,), others)
    if np.isnan(without_others).any():
        return np.full((len(CURVES), len(RECALLS)), np.nan)
    found = (without_others > 0).astype(float)
    return np.stack([*scored, without_similar, without_others, found, np.ones_like(found)])
