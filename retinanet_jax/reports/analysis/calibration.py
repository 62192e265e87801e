"""Whether a score of .8 means that 80% of such detections are right.

Reliability diagram and expected calibration error as in Guo et al., On Calibration of Modern Neural
Networks (arXiv 1706.04599), equations 2 to 5, over detections instead of classified images: a
detection is right as COCO counts it at one IoU threshold. Only the detections that are there can
be looked at, those above the score threshold after NMS.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 15  # as in the paper


class Calibration(NamedTuple):
    """Detections in equally wide bins of score, (low, high].

    counts: detections in each bin.
    score: their mean score; NaN in an empty bin.
    precision: the share of them that is right; NaN in an empty bin.
    expected_error: mean over the detections of |precision - score| of their bins; NaN without any.
    largest_error: of any bin.
    bias: mean score less precision over all of them: above 0 the scores promise too much.
    """

    counts: Int[np.ndarray, " b"]
    score: Float[np.ndarray, " b"]
    precision: Float[np.ndarray, " b"]
    expected_error: float
    largest_error: float
    bias: float


def calibrate(
    scores: Float[np.ndarray, " d"], correct: Bool[np.ndarray, " d"], bins: int = BINS
) -> Calibration:
    """Scores of detections beside how many of them are right.

    Args:
      scores: in [0, 1].
      correct: of the same detections.
      bins: number of bins over [0, 1].
    """
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], scores, side="left")
    counts = np.bincount(place, minlength=bins)
    there = np.where(counts, counts, np.nan)
    score = np.bincount(place, scores, bins) / there
    precision = np.bincount(place, correct, bins) / there
    if not len(scores):
        return Calibration(counts, score, precision, np.nan, np.nan, np.nan)
    gaps = np.nan_to_num(np.abs(precision - score))
    return Calibration(
        counts,
        score,
        precision,
        expected_error=float(gaps @ counts / counts.sum()),
        largest_error=float(gaps.max()),
        bias=float(scores.mean() - correct.mean()),
    )
