"""COCO's average precision of boxes, by the official pycocotools or by a faster library.

The numbers are those of https://cocodataset.org/#detection-eval. Only what surrounds the library is
ours: its input is checked first, and two traps of pycocotools are avoided. An annotation with id 0
counts as "no match" inside COCOeval, so annotations are numbered anew from 1; and both COCO and
COCOeval write into what they are given, so they get copies.
"""

import json
import math
import numbers
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from retinanet_jax.data.records import Categories
from retinanet_jax.metrics.coco_backends import BACKENDS, check_backend

ArrayLike = Array | np.ndarray
UNDEFINED = -1.0
"""What pycocotools gives where there is no object to be found."""

SUMMARY_NAMES = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
"""The twelve numbers in the order in which pycocotools prints them."""


class CocoMetrics(NamedTuple):
    """Average precision and recall, in [0, 1], -1 where undefined."""

    summary: dict[str, float]
    """The twelve numbers, under `SUMMARY_NAMES`."""
    per_class: dict[str, float]
    """AP of each category by its name (name and id where two share a name), in the file's order."""


def to_coco_results(
    image_id: int | np.integer,
    boxes: Float[ArrayLike, "d 4"],
    scores: Float[ArrayLike, "d"],
    labels: Int[ArrayLike, "d"],
    categories: Categories,
) -> list[dict[str, Any]]:
    """Detections of one image in COCO's results format, ready for `json.dump`.

    Args:
      image_id: COCO's id of the image.
      boxes: xyxy in original pixels.
      scores: in [0, 1].
      labels: contiguous from 0; -1 marks padding, which is left out.
      categories: gives the category id of a label.

    Returns:
      One dict per detection: image_id, category_id, bbox as [x, y, width, height], score.
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
      ground_truth: content of a COCO instances file, or its path. An annotation without `iscrowd`
        is no crowd, one without `area` has the area of its box.
      results: detections in COCO's results format (`to_coco_results`), possibly none.
      image_ids: the images to be scored; None: all of the ground truth, as COCO does. Results on
        other images of the ground truth do not count.

    Returns:
      AP and AR are 0 where nothing was found, -1 where there was nothing to find.

    Raises:
      ValueError: for a ground truth or a result without a needed field, or with an unknown image
        id or category id, the message naming the entry; or for a backend that is not there.
    """
    check_backend(backend)
    name, content = _read(ground_truth)
    known = _check_ground_truth(content, name)
    _check_results(results, known, name)
    evaluated = _image_ids(image_ids, known, name)
    found = BACKENDS[backend](_complete(content), results, evaluated)
    summary = dict(zip(SUMMARY_NAMES, found.stats.tolist(), strict=True))
    return CocoMetrics(summary, _per_class(found.precision, content["categories"]))


class _Known(NamedTuple):
    images: frozenset
    categories: frozenset


def _read(ground_truth) -> tuple[str, dict]:
    """A name for messages, and the content."""
    if isinstance(ground_truth, dict):
        return "ground truth", ground_truth
    try:
        content = json.loads(Path(ground_truth).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{ground_truth}: not a JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{ground_truth}: not a COCO instances file (its JSON is no object)")
    return str(ground_truth), content


def _check_ground_truth(content: dict, name: str) -> _Known:
    for field in ("images", "annotations", "categories"):
        if not isinstance(content.get(field), list):
            raise ValueError(f"{name}: no list {field!r}; a COCO instances file has one")
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
            raise ValueError(f"{where}.score: {result['score']!r} is no finite number")


def _need(entry: dict, fields: Iterable[str], where: str) -> None:
    missing = [field for field in fields if field not in entry]
    if missing:
        raise ValueError(f"{where}: no field {missing[0]!r}")
    if "bbox" in fields and not _is_box(entry["bbox"]):
        raise ValueError(f"{where}.bbox: {entry['bbox']!r} is not [x, y, width, height]")


def _is_box(box) -> bool:
    return len(box) == 4 and all(map(_is_finite, box))


def _is_finite(value) -> bool:
    # Floats first: asking the abstract class took most of the time of scoring by hotcoco.
    return isinstance(value, float | numbers.Real) and math.isfinite(value)


def _check_ids(entry: dict, known: _Known, where: str, owner: str) -> None:
    if entry["image_id"] not in known.images:
        raise ValueError(f"{where}.image_id: {entry['image_id']} is no image of {owner}")
    if entry["category_id"] not in known.categories:
        raise ValueError(
            f"{where}.category_id: {entry['category_id']} is no category of {owner}, which has "
            f"{_shortened(sorted(known.categories))}; are these labels instead of category ids?"
        )


def _shortened(ids: list) -> str:
    return ", ".join(map(str, ids[:10])) + (f", ... ({len(ids)})" if len(ids) > 10 else "")


def _image_ids(image_ids, known: _Known, name: str) -> list[int]:
    if image_ids is None:
        return sorted(known.images)
    chosen = sorted({int(image_id) for image_id in image_ids})
    unknown = [image_id for image_id in chosen if image_id not in known.images]
    if unknown:
        raise ValueError(f"image_ids: {_shortened(unknown)} are no images of {name}")
    return chosen


def _complete(content: dict) -> dict:
    """A copy with the fields that are read; polygons, the bulk of the memory, are left out."""
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
    names = [category["name"] for category in categories]
    ids = sorted(category["id"] for category in categories)
    column = {category_id: i for i, category_id in enumerate(ids)}
    result = {}
    for category in categories:
        values = precision[:, :, column[category["id"]]]
        values = values[values > UNDEFINED]
        unique = names.count(category["name"]) == 1
        name = category["name"] if unique else f"{category['name']} ({category['id']})"
        result[name] = float(values.mean()) if values.size else UNDEFINED
    return result
