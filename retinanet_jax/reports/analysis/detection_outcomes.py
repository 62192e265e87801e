"""The outcome of each detection by COCO's rules: correct, wrong or ignored.

The rules are those of COCO's evaluation (https://cocodataset.org/#detection-eval). Here they give
the result of every single detection, and objects of other classes can be ignored, which COCO's
analysis of errors needs. The tests compare with pycocotools.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask

from retinanet_jax.data.records import Categories

COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
MAX_DETECTIONS = 100  # per class and image, as in COCO's AP
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""COCO's sizes of objects: areas in square pixels, both ends included."""

UNMATCHED = -1


class GroundTruth(NamedTuple):
    """Annotated objects, one per row.

    image: index of the image in the order of the image ids.
    label: contiguous from 0.
    boxes: x, y, width, height in pixels of the image, as in COCO's files.
    area: as annotated, in square pixels.
    crowd: True for a box around a region of many objects.
    """

    image: Int[np.ndarray, " m"]
    label: Int[np.ndarray, " m"]
    boxes: Float[np.ndarray, "m 4"]
    area: Float[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]


class DetectionTable(NamedTuple):
    """Detections, one per row, with the columns of GroundTruth and scores in [0, 1]."""

    image: Int[np.ndarray, " d"]
    label: Int[np.ndarray, " d"]
    boxes: Float[np.ndarray, "d 4"]
    scores: Float[np.ndarray, " d"]


class Outcomes(NamedTuple):
    """The outcomes of the detections of one class, by descending score.

    scores: scores of the detections.
    correct: per IoU threshold, whether the detection matches an object that no detection of a
      higher score matches.
    counted: per IoU threshold, False for detections of crowds and of ignored objects.
    num_objects: number of objects to find.
    """

    scores: Float[np.ndarray, " d"]
    correct: Bool[np.ndarray, "t d"]
    counted: Bool[np.ndarray, "t d"]
    num_objects: int


def read_tables(
    content: dict[str, Any], results: Sequence[dict[str, Any]], categories: Categories
) -> tuple[GroundTruth, DetectionTable]:
    """COCO's instances JSON, and detections in its results format, as columns."""
    ids = sorted(image["id"] for image in content["images"])
    index = {image_id: number for number, image_id in enumerate(ids)}

    def columns(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, ...]:
        image = np.array([index[row["image_id"]] for row in rows], int)
        label = np.array([categories.label_of(row["category_id"]) for row in rows], int)
        return image, label, np.array([row["bbox"] for row in rows], float).reshape(-1, 4)

    annotations = content["annotations"]
    truth = columns(annotations)
    box_areas = truth[2][:, 2:].prod(axis=1).tolist()
    areas = [a.get("area", area) for a, area in zip(annotations, box_areas, strict=True)]
    crowd = [a.get("iscrowd", 0) for a in annotations]
    scores = np.array([row["score"] for row in results], float)
    return (
        GroundTruth(*truth, np.array(areas, float), np.array(crowd, bool)),
        DetectionTable(*columns(results), scores),
    )


def class_outcomes(
    truth: GroundTruth,
    results: DetectionTable,
    label: int,
    ious: Sequence[float],
    *,
    ignored_labels: Collection[int] = (),
    area: tuple[float, float] = AREAS["all"],
) -> Outcomes:
    """The outcomes of the detections of one class.

    Args:
      label: the class.
      ious: the thresholds at which a detection matches an object.
      ignored_labels: other classes. A detection that matches an object of theirs is ignored.
      area: objects outside are ignored, and so are unmatched detections outside.
    """
    low, high = area
    ignored = (truth.label != label) | truth.crowd | (truth.area < low) | (truth.area > high)
    objects = by_image(np.flatnonzero(np.isin(truth.label, [label, *ignored_labels])), truth.image)
    found = by_image(np.flatnonzero(results.label == label), results.image)
    rows = [np.zeros(0, int)]
    correct, counted = ([np.zeros((len(ious), 0), bool)] for _ in range(2))
    for image, here in found.items():
        here = here[np.argsort(-results.scores[here], kind="stable")][:MAX_DETECTIONS]
        around = objects.get(image, np.zeros(0, int))
        matched, on_ignored = _match_image(
            results.boxes[here], truth, around, ignored[around], ious
        )
        box_areas = results.boxes[here, 2:].prod(axis=1)
        outside = (box_areas < low) | (box_areas > high)
        rows.append(here)
        correct.append(matched & ~on_ignored)
        counted.append(~on_ignored & (matched | ~outside))
    scores = results.scores[np.concatenate(rows)]
    falling = np.argsort(-scores, kind="stable")
    return Outcomes(
        scores[falling],
        np.concatenate(correct, axis=1)[:, falling],
        np.concatenate(counted, axis=1)[:, falling],
        int((~ignored & (truth.label == label)).sum()),
    )


def _match_image(boxes, truth, around, ignored, ious) -> tuple[np.ndarray, np.ndarray]:
    """[t d] each: which detections on an image match an object, and which an ignored one."""
    crowd = truth.crowd[around]
    overlaps = pairwise_overlaps(boxes, truth.boxes[around], crowd)
    matches = np.array([match_detections(overlaps, ignored, crowd, iou) for iou in ious])
    matched = matches != UNMATCHED
    return matched, matched & np.append(ignored, False)[matches]


def by_image(rows: Int[np.ndarray, " n"], image: Int[np.ndarray, " m"]) -> dict[int, np.ndarray]:
    """Rows of a table grouped by image, in the order of the images and then of the rows."""
    rows = rows[np.argsort(image[rows], kind="stable")]
    images, starts = np.unique(image[rows], return_index=True)
    return dict(zip(images.tolist(), np.split(rows, starts[1:]), strict=False))


def pairwise_overlaps(
    found: Float[np.ndarray, "d 4"],
    objects: Float[np.ndarray, "m 4"],
    crowd: Bool[np.ndarray, " m"],
) -> Float[np.ndarray, "d m"]:
    """IoU of boxes (x, y, width, height). For a crowd, the share of the detection inside it."""
    if not len(found) or not len(objects):
        return np.zeros((len(found), len(objects)))
    return np.asarray(mask.iou(found, objects, crowd.astype(np.uint8)))


def match_detections(
    overlaps: Float[np.ndarray, "d m"],
    ignored: Bool[np.ndarray, " m"],
    crowd: Bool[np.ndarray, " m"],
    iou: float | int,
) -> Int[np.ndarray, " d"]:
    """COCO's matching on one image: each detection, in order, takes the best free object.

    Args:
      overlaps: overlaps of detections, by descending score, with objects.
      ignored: objects that are matched only if no other object is free.
      crowd: objects that any number of detections may match.
      iou: least overlap of a match.

    Returns:
      The object of each detection (the last one of equals, as in COCO), or UNMATCHED.
    """
    iou = min(iou, 1 - 1e-10)
    matches = np.full(len(overlaps), UNMATCHED)
    free = np.ones(len(ignored), bool)
    for row in np.flatnonzero((overlaps >= iou).any(axis=1)).tolist():
        for kind in (~ignored, ignored):
            backwards = np.where(free & kind, overlaps[row], -1.0)[::-1]
            best = len(ignored) - 1 - int(np.argmax(backwards))
            if free[best] and kind[best] and overlaps[row, best] >= iou:
                matches[row] = best
                free[best] = crowd[best]
                break
    return matches
