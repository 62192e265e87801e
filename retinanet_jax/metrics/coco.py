"""COCO's average precision of boxes, by the official pycocotools or by a faster library.

The metric is defined at https://cocodataset.org/#detection-eval. This module checks the input and
avoids two traps of pycocotools: COCOeval interprets an annotation with id 0 as "no match", so
annotations are renumbered from 1. COCO and COCOeval modify their input, so they get copies. Crowd
boxes are passed on as `iscrowd`; the backend ignores detections on them.
"""

import json
import math
import numbers
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.data.records import Categories
from retinanet_jax.metrics.coco_backends import BACKENDS, check_backend

UNDEFINED = -1.0
"""The value of pycocotools for a metric without any object."""

SUMMARY_NAMES = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
"""The twelve numbers in the order of pycocotools."""


class CocoMetrics(NamedTuple):
    """Average precision and recall in [0, 1]; -1 where undefined."""

    summary: dict[str, float]
    """The twelve numbers, under `SUMMARY_NAMES`."""
    per_class: dict[str, float]
    """AP by name of the category (name and id if two share a name), in the order of the file."""


def to_coco_results(
    image_id: int | np.integer,
    boxes: Float[ArrayLike, "d 4"],
    scores: Float[ArrayLike, "d"],
    labels: Int[ArrayLike, "d"],
    categories: Categories,
) -> list[dict[str, Any]]:
    """Detections of one image in COCO's results format, for `json.dump`.

    Args:
      image_id: COCO's id of the image.
      boxes: xyxy in original pixels.
      scores: in [0, 1].
      labels: contiguous from 0. -1 marks padding, which is left out.
      categories: for the category id of each label.

    Returns:
      A dict per detection: image_id, category_id, bbox as [x, y, width, height], score.
    """
    boxes, scores, labels = (np.asarray(x).tolist() for x in (boxes, scores, labels))
    return [
        {
            "image_id": int(image_id),
            "category_id": int(categories.id_of(label)),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels, strict=True)
        if label >= 0
    ]


def coco_average_precision(
    ground_truth: dict[str, Any] | str | Path,
    results: Sequence[dict[str, Any]],
    image_ids: Iterable[int | np.integer] | None = None,
    *,
    backend: str = "pycocotools",
) -> CocoMetrics:
    """The twelve numbers of COCO and the AP of each category.

    Args:
      ground_truth: content of a COCO instances file, or its path. Defaults of an annotation:
        `iscrowd` 0, `area` that of its box.
      results: detections in COCO's results format (`to_coco_results`).
      image_ids: the images to evaluate. Results for other images are ignored. None: all images of
        the ground truth, as in COCO.
      backend: a name of BACKENDS.

    Returns:
      AP and AR are 0 without correct detections, and -1 without objects.

    Raises:
      ValueError: a missing field, an unknown image id or category id (the message names the
        entry), or a backend that is unknown or not installed.
    """
    check_backend(backend)
    _, content, evaluated = check_inputs(ground_truth, results, image_ids)
    found = BACKENDS[backend](required_fields(content), results, evaluated)
    summary = dict(zip(SUMMARY_NAMES, found.stats.tolist(), strict=True))
    return CocoMetrics(summary, _per_class(found.precision, content["categories"]))


def check_inputs(
    ground_truth: dict[str, Any] | str | Path,
    results: Sequence[dict[str, Any]],
    image_ids: Iterable[int | np.integer] | None = None,
) -> tuple[str, dict[str, Any], list[int]]:
    """A name for messages, the content of the ground truth, and the ids of the images to evaluate.

    For arguments and errors, see `coco_average_precision`.
    """
    name, content = _read(ground_truth)
    known = _check_ground_truth(content, name)
    _check_results(results, known, name)
    return name, content, _image_ids(image_ids, known, name)


class _Known(NamedTuple):
    images: frozenset
    categories: frozenset


def _read(ground_truth) -> tuple[str, dict]:
    """A name for messages, and the content."""
    if isinstance(ground_truth, dict):
        return "ground truth", ground_truth
    try:
        content = json.loads(
            Path(ground_truth).read_bytes()
        )  # UTF-8 or UTF-16, with or without BOM
    except ValueError as error:
        raise ValueError(f"{ground_truth}: not a JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{ground_truth}: not a COCO instances file (its JSON is not an object)")
    return str(ground_truth), content


def _check_ground_truth(content: dict, name: str) -> _Known:
    for field in ("images", "annotations", "categories"):
        if not isinstance(content.get(field), list):
            raise ValueError(f"{name}: has no list {field!r}; use a COCO instances file")
    for field, needed in (("images", ("id",)), ("categories", ("id", "name"))):
        for index, entry in enumerate(content[field]):
            _need(entry, needed, f"{name}: {field}[{index}]")
    known = _Known(
        frozenset(image["id"] for image in content["images"]),
        frozenset(category["id"] for category in content["categories"]),
    )
    for index, annotation in enumerate(content["annotations"]):
        where = f"{name}: annotations[{index}]"
        _need(annotation, ("image_id", "category_id", "bbox"), where)
        _check_ids(annotation, known, where, "the file itself")
    return known


def _check_results(results: Sequence[dict], known: _Known, name: str) -> None:
    for index, result in enumerate(results):
        where = f"results[{index}]"
        _need(result, ("image_id", "category_id", "bbox", "score"), where)
        _check_ids(result, known, where, name)
        if not _is_finite(result["score"]):
            raise ValueError(f"{where}.score: {result['score']!r} is not a finite number")


def _need(entry: dict, fields: Iterable[str], where: str) -> None:
    missing = [field for field in fields if field not in entry]
    if missing:
        raise ValueError(f"{where}: no field {missing[0]!r}")
    if "bbox" in fields and not _is_box(entry["bbox"]):
        raise ValueError(f"{where}.bbox: {entry['bbox']!r} is not [x, y, width, height]")


def _is_box(box) -> bool:
    return len(box) == 4 and all(map(_is_finite, box))


def _is_finite(value) -> bool:
    # Floats first: the check of the abstract class takes longer than the evaluation by hotcoco.
    return isinstance(value, float | numbers.Real) and math.isfinite(value)


def _check_ids(entry: dict, known: _Known, where: str, owner: str) -> None:
    if entry["image_id"] not in known.images:
        raise ValueError(f"{where}.image_id: {entry['image_id']} is not an image of {owner}")
    if entry["category_id"] not in known.categories:
        raise ValueError(
            f"{where}.category_id: {entry['category_id']} is not a category of {owner} "
            f"({_shortened(sorted(known.categories))}); write category ids, not labels"
        )


def _shortened(ids: list) -> str:
    return ", ".join(map(str, ids[:10])) + (f", ... ({len(ids)})" if len(ids) > 10 else "")


def _image_ids(image_ids, known: _Known, name: str) -> list[int]:
    if image_ids is None:
        return sorted(known.images)
    chosen = sorted({int(image_id) for image_id in image_ids})
    unknown = [image_id for image_id in chosen if image_id not in known.images]
    if unknown:
        raise ValueError(f"image_ids: {_shortened(unknown)} are not images of {name}")
    return chosen


def required_fields(content: dict[str, Any]) -> dict[str, Any]:
    """A copy whose annotations have the required fields only: polygons take most of the memory."""
    annotations = [
        {
            "id": number,
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "bbox": annotation["bbox"],
            "area": annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]),
            "iscrowd": annotation.get("iscrowd", 0),
        }
        for number, annotation in enumerate(content["annotations"], start=1)
    ]
    return {**content, "annotations": annotations}


def _per_class(precision: np.ndarray, categories: list[dict]) -> dict[str, float]:
    precision = precision[:, :, :, 0, -1]  # all areas, 100 detections
    names = unique_names(categories)
    ids = sorted(category["id"] for category in categories)
    column = {category_id: i for i, category_id in enumerate(ids)}
    result = {}
    for category in categories:
        values = precision[:, :, column[category["id"]]]
        values = values[values > UNDEFINED]
        result[names[category["id"]]] = float(values.mean()) if values.size else UNDEFINED
    return result


def unique_names(categories: list[dict[str, Any]]) -> dict[int, str]:
    """The name of each category by id, with the id if two share a name."""
    names = [category["name"] for category in categories]
    return {
        category["id"]: category["name"]
        if names.count(category["name"]) == 1
        else f"{category['name']} ({category['id']})"
        for category in categories
    }
