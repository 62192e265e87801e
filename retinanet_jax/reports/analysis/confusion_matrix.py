"""Which classes are confused with each other and with background."""

import numpy as np
from jaxtyping import Int

from retinanet_jax.reports.analysis.detection_outcomes import (
    UNMATCHED,
    DetectionTable,
    GroundTruth,
    by_image,
    match_detections,
    pairwise_overlaps,
)


def confusion_matrix(
    truth: GroundTruth,
    results: DetectionTable,
    num_classes: int,
    *,
    score: float | int,
    iou: float | int = 0.5,
) -> Int[np.ndarray, "k1 k1"]:
    """Objects by their class (rows) and the class they are detected as (columns).

    Detections are first matched to objects of their own class by COCO's rules, so that the diagonal
    is what COCO counts as correct. The remaining detections are then matched to the remaining
    objects of any class: these are the confusions. Crowds and detections on them are left out.

    Args:
      num_classes: k. Row and column k are background.
      score: detections with a lower score are left out.
      iou: least overlap of a match.

    Returns:
      [k + 1, k + 1]: row k has the detections that match no object (background, and objects that
      are detected already), column k the objects without a detection. A row adds up to the objects
      of its class, a column to the detections of its class.
    """
    found = np.flatnonzero(results.scores >= score)
    found = found[np.argsort(-results.scores[found], kind="stable")]
    detected = by_image(found, results.image)
    annotated = by_image(np.arange(len(truth.label)), truth.image)
    matrix = np.zeros((num_classes + 1, num_classes + 1), int)
    nothing = np.zeros(0, int)
    for image in detected.keys() | annotated.keys():
        here, around = detected.get(image, nothing), annotated.get(image, nothing)
        _count_image(matrix, truth, around, results, here, iou)
    return matrix


def _count_image(matrix, truth, around, results, here, iou) -> None:
    """Adds one image: objects `around`, detections `here` by falling score."""
    crowd, background = truth.crowd[around], len(matrix) - 1
    true_labels, found_labels = truth.label[around], results.label[here]
    overlaps = pairwise_overlaps(results.boxes[here], truth.boxes[around], crowd)
    own_class = np.where(true_labels == found_labels[:, None], overlaps, 0.0)
    matches = match_detections(own_class, crowd, crowd, iou)
    left = matches == UNMATCHED
    matched = np.zeros(len(around), bool)
    matched[matches[~left]] = True
    free = ~matched & ~crowd
    others = match_detections(overlaps[left][:, free], crowd[free], crowd[free], iou)
    # UNMATCHED is -1 and so takes the last entry of what it indexes.
    matches[left] = np.append(np.flatnonzero(free), UNMATCHED)[others]
    ignored = np.append(crowd, False)[matches]
    rows = np.append(true_labels, background)[matches]
    np.add.at(matrix, (rows[~ignored], found_labels[~ignored]), 1)
    missed = ~crowd
    missed[matches[matches != UNMATCHED]] = False
    np.add.at(matrix, (true_labels[missed], background), 1)
