"""Which classes are taken for which, and for background."""

import numpy as np
from jaxtyping import Int

from retinanet_jax.reports.analysis.outcomes import (
    UNMATCHED,
    Results,
    Truth,
    by_image,
    match,
    pairwise_overlaps,
)


def confusion_matrix(
    truth: Truth, results: Results, num_classes: int, *, score: float | int, iou: float | int = 0.5
) -> Int[np.ndarray, "k1 k1"]:
    """Objects by their class (rows) and the class they were detected as (columns).

    Detections first take objects of their own class, by COCO's rules: the diagonal is what COCO
    counts as right. What is left then takes what is left, whatever its class: confusions. Crowds
    and detections on them are left out.

    Args:
      num_classes: k; background is row and column k.
      score: detections with less are left out.
      iou: least overlap.

    Returns:
      [k + 1, k + 1]: row k has the detections that found nothing (background, and objects that were
      found already), column k the objects that nothing found. Rows add up to the objects of a
      class, columns to its detections.
    """
    found = np.flatnonzero(results.scores >= score)
    found = found[np.argsort(-results.scores[found], kind="stable")]
    detected = by_image(found, results.image)
    annotated = by_image(np.arange(len(truth.label)), truth.image)
    matrix = np.zeros((num_classes + 1, num_classes + 1), int)
    nothing = np.zeros(0, int)
    for image in detected.keys() | annotated.keys():
        here, around = detected.get(image, nothing), annotated.get(image, nothing)
        _count(matrix, truth, around, results, here, iou)
    return matrix


def _count(matrix, truth, around, results, here, iou) -> None:
    """Adds one image: objects `around`, detections `here` by falling score."""
    crowd, background = truth.crowd[around], len(matrix) - 1
    true, named = truth.label[around], results.label[here]
    overlaps = pairwise_overlaps(results.boxes[here], truth.boxes[around], crowd)
    own = np.where(true == named[:, None], overlaps, 0.0)
    matches = match(own, crowd, crowd, iou)
    left = matches == UNMATCHED
    taken = np.zeros(len(around), bool)
    taken[matches[~left]] = True
    free = ~taken & ~crowd
    others = match(overlaps[left][:, free], crowd[free], crowd[free], iou)
    # UNMATCHED is the place of the last entry, too.
    matches[left] = np.append(np.flatnonzero(free), UNMATCHED)[others]
    ignored = np.append(crowd, False)[matches]
    rows = np.append(true, background)[matches]
    np.add.at(matrix, (rows[~ignored], named[~ignored]), 1)
    missed = ~crowd
    missed[matches[matches != UNMATCHED]] = False
    np.add.at(matrix, (true[missed], background), 1)
