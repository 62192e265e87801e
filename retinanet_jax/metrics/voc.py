"""Pascal VOC's average precision, by the rules of the official development kit (VOCevaldet.m).

* A detection is assigned to the object of its class and image that it overlaps most, even if that
  object has a detection already.
* It is correct if the overlap is at least `iou` (`>=` in the kit, `>` in py-faster-rcnn) and it is
  the first correct detection of this object, by descending score. Later ones are wrong.
* Difficult objects, and detections assigned to them, are ignored.
* Sides are x2 - x1 + 1, because VOC's corners are the first and the last pixel of the object.
  Published numbers use this rule. `inclusive_corners=False` uses x2 - x1, for boxes whose corners
  are coordinates, as in the rest of this package.

There are two definitions of the area under the precision-recall curve. VOC 2007: the mean, over the
recalls 0, .1, .., 1, of the highest precision at or above that recall. VOC 2010 and later: the
exact area under the monotone curve.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from retinanet_jax.core.arrays import ArrayLike


class VocObjects(NamedTuple):
    """The ground truth of one image."""

    boxes: Float[ArrayLike, "m 4"]
    """xyxy in original pixels."""
    labels: Int[ArrayLike, "m"]
    """Contiguous from 0; -1 marks padding."""
    difficult: Bool[ArrayLike, "m"] | None = None
    """None: no object is difficult."""


class VocDetections(NamedTuple):
    """The detections of one image, in any order."""

    boxes: Float[ArrayLike, "d 4"]
    """xyxy in original pixels."""
    scores: Float[ArrayLike, "d"]
    labels: Int[ArrayLike, "d"]
    """Contiguous from 0; -1 marks padding."""


def voc_average_precision(
    ground_truth: Sequence[VocObjects | tuple],
    detections: Sequence[VocDetections | tuple],
    num_classes: int,
    iou: float | int = 0.5,
    *,
    names: Sequence[str] | None = None,
    inclusive_corners: bool = True,
) -> dict[str, Any]:
    """Average precision of each class and its mean, by both definitions.

    Args:
      ground_truth: one entry per image (or plain tuples).
      detections: one entry per image, in the same order.
      num_classes: labels are 0 .. num_classes - 1.
      iou: minimum overlap of a correct detection; 0.5 in VOC.
      names: names of the classes, the keys of the result. None: "0", "1", ...
      inclusive_corners: whether sides are x2 - x1 + 1, as in VOC's files and kit.

    Returns:
      `AP_11point` and `AP_allpoint`, the means over the classes with objects, and
      `per_class_11point` and `per_class_allpoint`, dicts by name. The AP of a class without objects
      (difficult ones do not count) is NaN, and so is the mean if there is no other class.

    Raises:
      ValueError: lists of different lengths, a label out of range, or names that are not distinct
        or not one per class.
    """
    names = _checked_names(names, num_classes)
    objects, found = _flatten(ground_truth, detections, num_classes)
    margin = 1.0 if inclusive_corners else 0.0
    eleven, exact = {}, {}
    for label, name in enumerate(names):
        correct, num_objects = _correct(_select(objects, label), _select(found, label), iou, margin)
        recall, precision = _curve(correct, num_objects)
        eleven[name] = _eleven_points(correct, precision, num_objects)
        exact[name] = _area(recall, precision)
    return {
        "AP_11point": _mean(eleven),
        "AP_allpoint": _mean(exact),
        "per_class_11point": eleven,
        "per_class_allpoint": exact,
    }


def _checked_names(names, num_classes: int) -> list[str]:
    names = [str(i) for i in range(num_classes)] if names is None else list(names)
    if len(set(names)) != num_classes or len(names) != num_classes:
        raise ValueError(f"names: {names} are not {num_classes} distinct names, one per class")
    return names


class _Rows(NamedTuple):
    """Objects or detections of all images; `extra` is difficult or the score."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    extra: np.ndarray


def _flatten(ground_truth, detections, num_classes: int) -> tuple[_Rows, _Rows]:
    if len(ground_truth) != len(detections):
        raise ValueError(
            f"ground_truth has {len(ground_truth)} images and detections {len(detections)}; "
            "an image without detections needs an empty entry"
        )
    objects = [VocObjects(*entry) for entry in ground_truth]
    objects = [
        o._replace(difficult=np.zeros(len(o.labels), bool)) if o.difficult is None else o
        for o in objects
    ]
    found = [VocDetections(*entry) for entry in detections]
    return (
        _rows("ground_truth", [(o.boxes, o.labels, o.difficult) for o in objects], num_classes),
        _rows("detections", [(d.boxes, d.labels, d.scores) for d in found], num_classes),
    )


def _rows(name: str, entries: list[tuple], num_classes: int) -> _Rows:
    for image, (boxes, labels, extra) in enumerate(entries):
        if not len(boxes) == len(labels) == len(extra):
            raise ValueError(
                f"{name}[{image}]: {len(boxes)} boxes, {len(labels)} labels and {len(extra)} "
                "scores or difficult marks"
            )
        outside = [int(label) for label in np.asarray(labels) if label >= num_classes]
        if outside:
            raise ValueError(
                f"{name}[{image}].labels: {outside[0]} is not in 0 .. {num_classes - 1}"
            )
    image = np.repeat(np.arange(len(entries)), [len(labels) for _, labels, _ in entries])
    return _Rows(
        image=image,
        boxes=np.concatenate([np.zeros((0, 4))] + [np.reshape(b, (-1, 4)) for b, _, _ in entries]),
        labels=np.concatenate([np.zeros(0, int)] + [np.asarray(x) for _, x, _ in entries]),
        extra=np.concatenate([np.zeros(0)] + [np.asarray(x, float) for _, _, x in entries]),
    )


def _select(rows: _Rows, label: int) -> _Rows:
    return _Rows(*(column[rows.labels == label] for column in rows))


def _correct(objects: _Rows, found: _Rows, iou: float, margin: float) -> tuple[np.ndarray, int]:
    """Whether each detection is correct, by falling score, and the number of objects to find."""
    # Stable sort: detections of equal score stay in the order of the images, as in the kit.
    found = _Rows(*(column[np.argsort(-found.extra, kind="stable")] for column in found))
    target, overlap = _closest(objects, found, margin)
    hit = overlap >= iou
    difficult = objects.extra > 0
    ignored = np.zeros(len(hit), bool)
    ignored[hit] = difficult[target[hit]]
    first = np.zeros(len(hit), bool)
    candidates = np.flatnonzero(hit)
    first[candidates[np.unique(target[candidates], return_index=True)[1]]] = True
    return first[~ignored], int((~difficult).sum())


def _closest(objects: _Rows, found: _Rows, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """For each detection, the object of its image with the highest IoU, and this IoU (or -1)."""
    target = np.zeros(len(found.image), int)
    overlap = np.full(len(found.image), -1.0)
    by_image = np.argsort(found.image, kind="stable")
    groups = np.split(by_image, np.flatnonzero(np.diff(found.image[by_image])) + 1)
    for rows in groups if len(by_image) else ():
        start, end = np.searchsorted(objects.image, found.image[rows[0]] + np.array([0, 1]))
        if start == end:
            continue
        ious = _pairwise_iou(found.boxes[rows], objects.boxes[start:end], margin)
        target[rows] = start + ious.argmax(axis=1)
        overlap[rows] = ious.max(axis=1)
    return target, overlap


def _pairwise_iou(boxes1, boxes2, margin: float) -> np.ndarray:
    """IoU in float64, with the margin of inclusive corners."""
    low = np.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
    high = np.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    intersection = np.prod(np.maximum(high - low + margin, 0), axis=-1)
    area1, area2 = (np.prod(b[:, 2:] - b[:, :2] + margin, axis=-1) for b in (boxes1, boxes2))
    union = area1[:, None] + area2[None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _curve(correct: np.ndarray, num_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall (NaN without objects) and precision after each detection."""
    hits = np.cumsum(correct)
    recall = hits / num_objects if num_objects else np.full(len(hits) or 1, np.nan)
    return recall, hits / np.arange(1, len(hits) + 1)


def _eleven_points(correct: np.ndarray, precision: np.ndarray, num_objects: int) -> float:
    if num_objects == 0:
        return float("nan")
    # Integers are exact: 3 of 10 objects are a recall of .3, but 3 * .1 > .3 in floats.
    hits = np.cumsum(correct)
    best = [precision[hits * 10 >= tenths * num_objects].max(initial=0.0) for tenths in range(11)]
    return float(np.mean(best))


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the monotone (falling) precision; NaN if the recall is."""
    if np.isnan(recall).any():
        return float("nan")
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * monotone))


def _mean(per_class: dict[str, float]) -> float:
    defined = [value for value in per_class.values() if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
