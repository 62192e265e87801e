"""Calibration of the scores: are 80% of the detections with a score of .8 correct?

Reliability diagram and expected calibration error of Guo et al., On Calibration of Modern Neural
Networks (arXiv 1706.04599), equations 2 to 5, over detections instead of classified images. A
detection is correct if COCO counts it as correct at one IoU threshold. Only detections above the
score threshold, after NMS, can be considered.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 15  # as in the paper


class Calibration(NamedTuple):
    """Detections in equally wide bins of score, (low, high].

    counts: detections per bin.
    score: mean score; NaN in an empty bin.
    precision: share of correct detections; NaN in an empty bin.
    expected_error: mean of |precision - score| of the bins over the detections; NaN without any.
    largest_error: the largest |precision - score| of a bin.
    bias: mean score minus precision over all detections; positive if the scores are too high.
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
    """Compares the scores of detections with their precision.

    Args:
      scores: in [0, 1].
      correct: whether each detection is correct.
      bins: number of bins over [0, 1].
    """
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], scores, side="left")
    counts = np.bincount(place, minlength=bins)
    divisor = np.where(counts, counts, np.nan)
    score = np.bincount(place, scores, bins) / divisor
    precision = np.bincount(place, correct, bins) / divisor
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
