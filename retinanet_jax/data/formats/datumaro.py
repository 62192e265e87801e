"""Datumaro's JSON, format 1.0: annotations/<subset>.json with items, images/<subset>.

Written by the datumaro package, CVAT ('Datumaro 1.0') and Intel Geti. Boxes are read, as are the
bounding boxes of rotated boxes, polygons, masks, ellipses and cuboids in the image. Annotations of
one label in one group are the parts of an object, as in Datumaro's own conversion to COCO.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.class_lists import checked_class_names
from retinanet_jax.data.annotations.folder_files import ascii_head, parse_json, read_text, stem_of
from retinanet_jax.data.annotations.ignore_marks import is_ignored
from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_content import (
    Content,
    ImageEntry,
    Region,
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_files import find_layout_of
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.datumaro_shapes import BOXES, EXPORT, SHAPES, TYPES, box_around

_OTHER_MEDIA = ("video_frame", "video", "point_cloud")
_HEAD, _MAX_BYTES = 1 << 16, 1 << 30


class _Part(NamedTuple):
    """An annotation of an item, by its place in the list, with the name of its label."""

    number: int
    label: str | None
    annotation: dict


def find(root: Path) -> Layout | None:
    """Returns the layout of Datumaro's files in a folder or its split folders, or of one file.

    The files of a folder are in annotations/ in it.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_FORMAT, root)


def _is_datumaro(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    if not re.match(rb"[^\[{]*\{", head):
        return False
    categories = re.search(rb'"categories"\s*:\s*\{', head)
    items = re.search(rb'"items"\s*:\s*\[', head)
    labels = re.search(rb'"label"\s*:\s*\{', head)
    return bool(b'"dm_format_version"' in head or (categories and (items or labels)))


def _parse(path: Path, guard: Guard) -> Content:
    content = parse_json(read_text(path, _MAX_BYTES), path)
    items = content.get("items") if isinstance(content, dict) else None
    if not isinstance(items, list):
        what = f"items is {fields.short(items)}"
        raise DataError("annotation file", path, "", what, EXPORT)
    labels, class_names = _labels(content.get("categories"), path)
    entries = []
    for number, item in enumerate(items):
        with guard:
            name = fields.field(item, "id", path, f"item {number}")
            where = f"item {fields.short(name)}"
            image = _image(item, path, where)
            regions = _regions(item.get("annotations"), labels, path, where, guard)
            names = [_beside(path, image.get("path") or name)]
            entries.append(ImageEntry(names, where, regions, _size(image.get("size"))))
    unnamed = not labels and any(entry.regions for entry in entries)
    return Content(entries, class_names, ((fields.NO_CLASSES, str(path)),) if unnamed else ())


def _labels(categories: Any, path: Path) -> tuple[list[str], tuple[str, ...] | None]:
    """The names by label_id; and those of the classes, which the points of a skeleton are not."""
    categories = categories if isinstance(categories, dict) else {}
    label, points = categories.get("label") or {}, categories.get("points") or {}
    try:
        stated = [(entry["name"], entry.get("parent")) for entry in label.get("labels", [])]
        skeletons = {n["label_id"]: n["labels"] for n in points.get("items", [])}
        parts = {(name, stated[n][0]) for n, names in skeletons.items() for name in names}
        names = [name.strip() for name, _ in stated]
        classes = [name for name, entry in zip(names, stated, strict=True) if entry not in parts]
    except (AttributeError, LookupError, TypeError) as error:
        what = f"categories is {fields.short(categories)}"
        raise DataError("categories", path, "", what, EXPORT) from error
    return names, checked_class_names(classes, path) if names else None


def _image(item: dict, path: Path, where: str) -> dict:
    """The entry of an item about its image: path and size, both optional."""
    if other := next((name for name in _OTHER_MEDIA if item.get(name)), None):
        what = f"is a {other.replace('_', ' ')}"
        fix = "save it as an image and export the annotations again"
        raise DataError("media", path, where, what, fix)
    image = item.get("image") or item.get("media") or {}
    if not isinstance(image, dict):
        what = f"image is {fields.short(image)}"
        raise DataError("image", path, where, what, 'write {"path": ..., "size": ...}')
    return image


def _beside(path: Path, name: Any) -> Any:
    """The name of an image in images/<subset>, as seen from its annotation file.

    Where it is not there, as with images that were not exported, it is found by its own name.
    """
    if not isinstance(name, str) or not name.strip():
        return name
    up = "../" if path.parent.name.lower() == "annotations" else ""
    return f"{up}images/{stem_of(path.name)}/{name.strip()}"


def _size(value: Any) -> tuple[int, int] | None:
    return fields.size(*value) if isinstance(value, list) and len(value) == 2 else None


def _regions(
    annotations: Any, labels: list[str], path: Path, where: str, guard: Guard
) -> list[Region]:
    """The shapes of an item, those of one object together."""
    if not isinstance(annotations, list | None):
        what = f"annotations is {fields.short(annotations)}"
        raise DataError("annotations", path, where, what, "write a list of annotations")
    objects: dict[tuple, list[_Part]] = {}
    for number, annotation in enumerate(annotations or []):
        place = f"{where}: annotation {number}"
        with guard:
            kind = fields.field(annotation, "type", path, place)
            if kind not in TYPES:
                what, fix = f"type is {fields.short(kind)}", f"write one of {', '.join(SHAPES)}"
                raise DataError("type", path, place, what, fix)
            label = _label(annotation, labels, path, place) if kind in SHAPES else None
            group = annotation.get("group") if kind in SHAPES else None
            key = (str(group), label) if group else (number,)
            objects.setdefault(key, []).append(_Part(number, label, annotation))
    divided = [parts for found in objects.values() for parts in _divided(found)]
    regions = []
    for parts in sorted(divided, key=lambda parts: parts[0].number):
        with guard:
            regions.append(_region(parts, path, where))
    return regions


def _label(annotation: dict, labels: list[str], path: Path, where: str) -> str:
    stated = annotation.get("label_id")
    if not labels and stated is None:
        return fields.ONE_CLASS
    number = fields.as_integer(stated)
    if number is None or not 0 <= number < len(labels):
        what = f"label_id is {fields.short(stated)}, but there are {len(labels)} labels"
        raise DataError("label_id", path, where, what, "write the number of a label, from 0")
    return labels[number]


def _divided(found: list[_Part]) -> list[list[_Part]]:
    """A group is one object; if it has several boxes, each annotation is an object of its own."""
    boxes = sum(part.annotation["type"] in BOXES for part in found)
    return [[part] for part in found] if boxes > 1 else [found]


def _region(parts: list[_Part], path: Path, where: str) -> Region:
    shapes = [part.annotation for part in parts]
    place = f"annotation {parts[0].number}"
    marks = [is_ignored(shape.get("attributes"), path, f"{where}: {place}") for shape in shapes]
    return Region(place, parts[0].label, shapes, any(marks))


_FORMAT = SplitFileFormat("datumaro", "Datumaro JSON", (".json",), _is_datumaro, _parse, box_around)
