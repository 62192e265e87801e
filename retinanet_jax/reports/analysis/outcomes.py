"""What becomes of each detection by COCO's rules: right, wrong, or not counted.

The rules are those of COCO's evaluation (https://cocodataset.org/#detection-eval), here with the
result for every single detection, and with objects of other classes that may be forgiven, which its
analysis of errors needs. pycocotools is the yardstick of the tests.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask

from retinanet_jax.data.records import Categories

COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
MAX_DETECTIONS = 100  # of one class on one image that COCO counts
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""COCO's sizes of objects: areas in square pixels, both ends included."""

UNMATCHED = -1


class Truth(NamedTuple):
    """Annotated objects, a row each.

    image: place of the image in the order of the ids.
    label: contiguous from 0.
    boxes: x, y, width, height in pixels of the image, as in COCO's files.
    area: as annotated, in square pixels.
    crowd: True where a box stands for a region of many objects.
    """

    image: Int[np.ndarray, " m"]
    label: Int[np.ndarray, " m"]
    boxes: Float[np.ndarray, "m 4"]
    area: Float[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]


class Results(NamedTuple):
    """Detections, a row each: columns as those of Truth, and scores in [0, 1]."""

    image: Int[np.ndarray, " d"]
    label: Int[np.ndarray, " d"]
    boxes: Float[np.ndarray, "d 4"]
    scores: Float[np.ndarray, " d"]


class Outcomes(NamedTuple):
    """What became of the detections of one class, by falling score.

    scores: of the detections.
    correct: by IoU threshold, whether a detection found an object that no better one had found.
    counted: by IoU threshold; detections on crowds and forgiven objects are not.
    num_objects: that there are to be found.
    """

    scores: Float[np.ndarray, " d"]
    correct: Bool[np.ndarray, "t d"]
    counted: Bool[np.ndarray, "t d"]
    num_objects: int


def read_tables(
    content: dict[str, Any], results: Sequence[dict[str, Any]], categories: Categories
) -> tuple[Truth, Results]:
    """COCO's instances JSON, and detections in its results format, as columns."""
    ids = sorted(image["id"] for image in content["images"])
    place = {image_id: number for number, image_id in enumerate(ids)}

    def columns(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, ...]:
        image = np.array([place[row["image_id"]] for row in rows], int)
        label = np.array([categories.label_of(row["category_id"]) for row in rows], int)
        return image, label, np.array([row["bbox"] for row in rows], float).reshape(-1, 4)

    annotations = content["annotations"]
    truth = columns(annotations)
    sides = truth[2][:, 2:].prod(axis=1).tolist()
    areas = [a.get("area", side) for a, side in zip(annotations, sides, strict=True)]
    crowd = [a.get("iscrowd", 0) for a in annotations]
    scores = np.array([row["score"] for row in results], float)
    return (
        Truth(*truth, np.array(areas, float), np.array(crowd, bool)),
        Results(*columns(results), scores),
    )


def class_outcomes(
    truth: Truth,
    results: Results,
    label: int,
    ious: Sequence[float],
    *,
    forgiven: Collection[int] = (),
    area: tuple[float, float] = AREAS["all"],
) -> Outcomes:
    """What became of the detections of one class.

    Args:
      label: the class.
      ious: thresholds from which on a detection may have found an object.
      forgiven: labels of other classes: a detection on an object of theirs is not counted.
      area: objects outside are not to be found, and what is found outside is not counted.
    """
    low, high = area
    spared = (truth.label != label) | truth.crowd | (truth.area < low) | (truth.area > high)
    objects = by_image(np.flatnonzero(np.isin(truth.label, [label, *forgiven])), truth.image)
    found = by_image(np.flatnonzero(results.label == label), results.image)
    rows = [np.zeros(0, int)]
    correct, counted = ([np.zeros((len(ious), 0), bool)] for _ in range(2))
    for image, here in found.items():
        here = here[np.argsort(-results.scores[here], kind="stable")][:MAX_DETECTIONS]
        around = objects.get(image, np.zeros(0, int))
        taken, on_spared = _takes(results.boxes[here], truth, around, spared[around], ious)
        sides = results.boxes[here, 2:].prod(axis=1)
        outside = (sides < low) | (sides > high)
        rows.append(here)
        correct.append(taken & ~on_spared)
        counted.append(~on_spared & (taken | ~outside))
    scores = results.scores[np.concatenate(rows)]
    falling = np.argsort(-scores, kind="stable")
    return Outcomes(
        scores[falling],
        np.concatenate(correct, axis=1)[:, falling],
        np.concatenate(counted, axis=1)[:, falling],
        int((~spared & (truth.label == label)).sum()),
    )


def _takes(boxes, truth, around, spared, ious) -> tuple[np.ndarray, np.ndarray]:
    """By IoU, which detections on one image take an object, and which a spared one: [t d] each."""
    crowd = truth.crowd[around]
    overlaps = pairwise_overlaps(boxes, truth.boxes[around], crowd)
    matches = np.array([match(overlaps, spared, crowd, iou) for iou in ious])
    taken = matches != UNMATCHED
    return taken, taken & np.append(spared, False)[matches]


def by_image(rows: Int[np.ndarray, " n"], image: Int[np.ndarray, " m"]) -> dict[int, np.ndarray]:
    """Rows of a table by the image they are on, images rising, rows in their order."""
    rows = rows[np.argsort(image[rows], kind="stable")]
    images, starts = np.unique(image[rows], return_index=True)
    return dict(zip(images.tolist(), np.split(rows, starts[1:]), strict=False))


def pairwise_overlaps(
    found: Float[np.ndarray, "d 4"],
    objects: Float[np.ndarray, "m 4"],
    crowd: Bool[np.ndarray, " m"],
) -> Float[np.ndarray, "d m"]:
    """IoU of boxes (x, y, width, height); with a crowd, the share of the detection inside it."""
    if not len(found) or not len(objects):
        return np.zeros((len(found), len(objects)))
    return np.asarray(mask.iou(found, objects, crowd.astype(np.uint8)))


def match(
    overlaps: Float[np.ndarray, "d m"],
    spared: Bool[np.ndarray, " m"],
    crowd: Bool[np.ndarray, " m"],
    iou: float | int,
) -> Int[np.ndarray, " d"]:
    """COCO's matching on one image: who comes first takes the free object it overlaps most.

    Args:
      overlaps: of detections, by falling score, with objects.
      spared: objects that are taken only where there is no other.
      crowd: objects that any number of detections may take.
      iou: least overlap.

    Returns:
      The object of each detection (the last one of equals, as in COCO), or UNMATCHED.
    """
    iou = min(iou, 1 - 1e-10)
    matches = np.full(len(overlaps), UNMATCHED)
    free = np.ones(len(spared), bool)
    for row in np.flatnonzero((overlaps >= iou).any(axis=1)).tolist():
        for kind in (~spared, spared):
            backwards = np.where(free & kind, overlaps[row], -1.0)[::-1]
            best = len(spared) - 1 - int(np.argmax(backwards))
            if free[best] and kind[best] and overlaps[row, best] >= iou:
                matches[row] = best
                free[best] = crowd[best]
                break
    return matches
