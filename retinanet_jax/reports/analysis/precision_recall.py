"""Precision over recall, as COCO draws it, and the areas under it."""

import numpy as np
from jaxtyping import Float

from retinanet_jax.reports.analysis.outcomes import Outcomes

RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads the precision."""


def precision_curves(outcomes: Outcomes) -> Float[np.ndarray, "t 101"]:
    """By IoU threshold, the highest precision at each of RECALLS or beyond; 0 if it is not reached.

    NaN where there is no object to be found. The mean of a row is the average precision.
    """
    if not outcomes.num_objects:
        return np.full((len(outcomes.correct), len(RECALLS)), np.nan)
    right = np.cumsum(outcomes.correct & outcomes.counted, axis=1)
    counted = np.cumsum(outcomes.counted, axis=1)
    precision = right / np.maximum(counted, 1)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # Beyond the last detection stands the 0 of a recall that is never reached.
    highest = np.pad(highest, ((0, 0), (0, 1)))
    recall = right / outcomes.num_objects
    places = [np.searchsorted(row, RECALLS, side="left") for row in recall]
    return np.take_along_axis(highest, np.array(places), axis=1)


def mean_over_classes(values: Float[np.ndarray, "k *rest"]) -> np.ndarray:
    """The mean over the classes that have an object; NaN where none has."""
    there = ~np.isnan(values)
    count = there.sum(axis=0)
    sums = np.where(there, values, 0).sum(axis=0)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)
