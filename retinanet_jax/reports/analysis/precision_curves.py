"""Precision over recall, as in COCO's evaluation."""

import numpy as np
from jaxtyping import Float

from retinanet_jax.reports.analysis.detection_outcomes import Outcomes

RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads the precision."""


def precision_curves(outcomes: Outcomes) -> Float[np.ndarray, "t 101"]:
    """Per IoU threshold, the highest precision at or above each of RECALLS; 0 if not reached.

    NaN if there is no object to find. The mean of a row is the average precision.
    """
    if not outcomes.num_objects:
        return np.full((len(outcomes.correct), len(RECALLS)), np.nan)
    correct = np.cumsum(outcomes.correct & outcomes.counted, axis=1)
    counted = np.cumsum(outcomes.counted, axis=1)
    precision = correct / np.maximum(counted, 1)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # The last entry is the precision of recalls that are not reached.
    highest = np.pad(highest, ((0, 0), (0, 1)))
    recall = correct / outcomes.num_objects
    places = [np.searchsorted(row, RECALLS, side="left") for row in recall]
    return np.take_along_axis(highest, np.array(places), axis=1)


def mean_over_classes(values: Float[np.ndarray, "k *rest"]) -> np.ndarray:
    """The mean over the classes that have an object; NaN if none has."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    sums = np.where(defined, values, 0).sum(axis=0)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)
