"""COCO's instances JSON as a dict, without its polygons and masks."""

import sys
from typing import Any

import numpy as np

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations import json_stream
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats.coco_categories import read_categories
from retinanet_jax.data.records import Categories

# Of an annotation without `bbox`: the box around its polygons or mask, which are not kept.
OUTLINE_FIELD = "box of the outline"
# Of an annotation whose `bbox` is a rectangle before its rotation: the angle in degrees.
ROTATION_FIELD = "rotation of the box"


def read_json(path: AnyPath, *, annotated: bool = True) -> dict:
    """Returns the instances JSON as a dict whose `images`, `annotations`, `categories` are lists.

    Polygons and masks (`segmentation`) are dropped; they would be most of it. Where there is no
    box, theirs is kept. Without `annotated`, the list `annotations` may be missing.

    Raises:
      DataError: the file is missing or not JSON, not an object, or a field is missing or not a
        list.
    """
    try:
        with path.open("rb") as file:
            content = json_stream.load(file, _without_outline)
    except OSError as error:
        fix = "add the file, or fix data.root, the split or data.annotations"
        raise DataError("annotation file", path, "", error.strerror or str(error), fix) from error
    except (ValueError, RecursionError) as error:
        fix = "export the annotations again as COCO instances JSON"
        raise DataError("annotation file", path, "", f"is not JSON ({error})", fix) from error
    if not isinstance(content, dict):
        fix = "export the annotations again as COCO instances JSON"
        raise DataError("annotation file", path, "", "is not a JSON object", fix)
    if not annotated:
        content.setdefault("annotations", [])
    for field in ("images", "annotations", "categories"):
        if not isinstance(content.get(field), list):
            fix = f"add {field!r}, a list (empty if there are none), as in COCO instances JSON"
            raise DataError("annotation file", path, "", f"has no list {field!r}", fix)
    return content


def _without_outline(name: str, entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    kept = {sys.intern(field): v for field, v in entry.items() if field != "segmentation"}
    if name == "annotations" and _is_empty(kept.get("bbox")):
        kept[OUTLINE_FIELD] = outline_box(entry.get("segmentation"))
    elif name == "annotations" and (angle := _rotation(entry)):
        kept[ROTATION_FIELD] = angle
    return kept


def _rotation(entry: dict) -> float:
    """The angle of a rectangle as CVAT and Datumaro write it, 0 without one.

    The `bbox` of an entry with polygons or a mask is that of these.
    """
    attributes = entry.get("attributes")
    if not isinstance(attributes, dict) or entry.get("segmentation"):
        return 0.0
    return (fields.finite(attributes.get("rotation")) or 0.0) % 360


def _is_empty(bbox: Any) -> bool:
    """Whether an entry states no box: none, null, [], or four zeros or nulls."""
    if bbox is None or bbox == []:
        return True
    return isinstance(bbox, list) and all(v is None or v == 0 for v in bbox)


def outline_box(outline: Any) -> list[float] | None:
    """Returns the bounding box [x, y, width, height] of COCO polygons or run lengths, or None."""
    try:
        if isinstance(outline, dict):
            from pycocotools import mask as run_lengths  # here: benchmarks of a network lack it

            height, width = outline["size"]
            if isinstance(outline["counts"], list):
                outline = run_lengths.frPyObjects(outline, height, width)
            box = run_lengths.toBbox(outline).tolist()
            return box if min(box[2:]) > 0 else None
        points = np.concatenate([np.array(p, np.float64).reshape(-1, 2) for p in outline])
        low, high = points.min(axis=0), points.max(axis=0)
        return [*low.tolist(), *(high - low).tolist()] if np.isfinite(points).all() else None
    except Exception:  # anything may stand there, and the entry is then one without a box
        return None


def check_ground_truth(content: dict, path: AnyPath) -> Categories:
    """Checks a file to score against, whose images need not exist; its categories.

    Boxes may be flat or outside their image, as some official ones are; COCO's evaluation accepts
    them.

    Raises:
      DataError: an id is missing, of the wrong type or used twice; a box is not four numbers or an
        area not a number.
    """
    categories = read_categories(content["categories"], path)
    guard = Guard("strict", Report())
    seen: dict[str, set[int]] = {"images": set(), "annotations": set()}
    for section, ids in seen.items():
        for place, entry in enumerate(content[section]):
            with guard:
                where = f"{section}[{place}]"
                entry_id = fields.integer(entry, "id", path, where)
                if entry_id in ids:
                    what, fix = f"id {entry_id} is used twice", "give each its own id"
                    raise DataError("id used twice", path, where, what, fix)
                ids.add(entry_id)
                if section == "annotations":
                    _check_object(entry, path, f"{where} (id {entry_id})", categories)
    guard.finish(path)
    return categories


def _check_object(entry: dict, path: AnyPath, where: str, categories: Categories) -> None:
    fields.integer(entry, "image_id", path, where)
    fields.category(entry, categories.ids, path, where)
    fields.box(entry, path, where)
    fields.field(entry, "area", path, where)
    fields.area(entry, path, where)
    fields.flag(entry, "iscrowd", path, where)
