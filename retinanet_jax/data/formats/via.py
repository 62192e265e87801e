"""VGG Image Annotator: JSON, project and CSV of versions 1 and 2, project JSON of version 3.

Rectangles and the bounding boxes of polygons, circles and ellipses are read. The class is the only
attribute of the regions, or the one that is named class, label or similar. Regions without any
attribute are objects of one class.
"""

import csv
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import ascii_head, parse_json, read_text
from retinanet_jax.data.annotations.ignore_marks import is_ignored, is_mark
from retinanet_jax.data.annotations.outlines import Box, around_ellipse, around_points
from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_content import (
    NO_BOX,
    OUTLINE,
    Content,
    ImageEntry,
    Region,
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_files import find_layout_of
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats import via_project3

_CLASS_ATTRIBUTES = (
    *("class", "class_name", "label", "category", "name", "object", "object_name", "type"),
    *("species",),
)
_WITHOUT_BOX = ("point", "polyline", "line")
_HEAD = 1 << 14


def find(root: Path) -> Layout | None:
    """Returns the layout of VIA's files in a folder and its split folders, or of one file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_FORMAT, root)


def _is_via(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    if path.suffix.lower() == ".csv":
        return b"region_shape_attributes" in head.partition(b"\n")[0]
    regions = b'"regions"' in head and b'"filename"' in head
    is_project = b'"_via_' in head or via_project3.is_one(head)
    return is_project or regions or b'"shape_attributes"' in head


def _parse(path: Path, guard: Guard) -> Content:
    """The images of a file; the label of a region is its attribute that is the class."""
    if path.suffix.lower() == ".csv":
        entries = list(_csv_entries(path))
    else:
        content = parse_json(read_text(path), path)
        if via_project3.is_project(content):
            entries = via_project3.entries(content, path, guard)
        else:
            entries = list(_json_entries(content, path))
    attribute = _class_attribute([r.label for entry in entries for r in entry.regions], path)
    entries = [e._replace(regions=_labelled(e, attribute, path, guard)) for e in entries]
    one_class = attribute is None and any(entry.regions for entry in entries)
    return Content(entries, notes=((fields.NO_CLASSES, str(path)),) if one_class else ())


def _json_entries(content: Any, path: Path) -> Iterator[ImageEntry]:
    """The images of a JSON file or project; attributes are the labels of the regions."""
    if isinstance(content, dict) and "_via_img_metadata" in content:
        content = content["_via_img_metadata"]
    if not isinstance(content, dict):
        what, fix = f"is {fields.short(content)}", "export the annotations again as JSON"
        raise DataError("annotation file", path, "", what, fix)
    for key, entry in content.items():
        if not isinstance(entry, dict):
            what = f"is {fields.short(entry)}"
            raise DataError("annotation file", path, fields.short(key), what, "write an object")
        regions = entry.get("regions") or []
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        if not isinstance(regions, list) or not all(isinstance(r, dict) for r in regions):
            what = f"regions is {fields.short(regions)}"
            raise DataError("regions", path, fields.short(key), what, "write a list of regions")
        name = entry.get("filename")
        shapes = [
            Region(f"region {n}", r.get("region_attributes"), r.get("shape_attributes"))
            for n, r in enumerate(regions)
        ]
        yield ImageEntry([name], f"image {fields.short(name)}", shapes)


def _csv_entries(path: Path) -> Iterator[ImageEntry]:
    """The images of a CSV file, whose rows are regions."""
    images: dict[str, list[Region]] = {}
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            where = f"line {reader.line_num}"
            name = row.get("filename") or row.get("#filename") or ""
            regions = images.setdefault(name, [])
            shape = parse_json(row.get("region_shape_attributes") or "{}", path, where)
            if shape:
                attributes = parse_json(row.get("region_attributes") or "{}", path, where)
                regions.append(Region(where, attributes, shape))
    except csv.Error as error:
        what, fix = f"cannot be read as CSV ({error})", "export the annotations again"
        raise DataError("annotation file", path, "", what, fix) from error
    for name, regions in images.items():
        yield ImageEntry([name], f"image {fields.short(name)}", regions)


def _class_attribute(attributes: Sequence[Any], path: Path) -> str | None:
    """The name of the attribute that is the class; None where no region has an attribute.

    Raises:
      DataError: the regions have several attributes, none of which is called class or similar.
    """
    items = [item for a in attributes if isinstance(a, dict) for item in a.items()]
    items = [(name, value) for name, value in items if not is_mark(name)]
    found = dict.fromkeys([name for name, value in items if value])
    by_name = {name.strip().lower().replace(" ", "_"): name for name in found}
    named = next((by_name[name] for name in _CLASS_ATTRIBUTES if name in by_name), None)
    if named is None and len(found) > 1:
        few = ", ".join(map(fields.short, list(found)[:5]))
        fix = "rename the attribute with the class to 'class'"
        raise DataError("class attribute", path, "", f"regions have the attributes {few}", fix)
    return named or next(iter(found), items[0][0] if items else None)


def _labelled(entry: ImageEntry, attribute: str | None, path: Path, guard: Guard) -> list[Region]:
    """The regions of an image, whose labels are attributes, with their classes for labels."""
    regions = []
    for region in entry.regions:
        with guard:
            stated = region.label if isinstance(region.label, dict) else {}
            attributes = {name: _checked(value) for name, value in stated.items()}
            crowd = is_ignored(attributes, path, f"{entry.where}: {region.where}")
            label = fields.ONE_CLASS if attribute is None else attributes.get(attribute)
            regions.append(region._replace(label=label, crowd=crowd))
    return regions


def _checked(value: Any) -> Any:
    """The value of an attribute; of a checkbox, the one option that is checked."""
    if not isinstance(value, dict):
        return value
    checked = [name for name, is_set in value.items() if is_set]
    return checked[0] if len(checked) == 1 else value


def _box(shape: Any, path: Path, where: str, found: set[str]) -> Box | None:
    content = shape if isinstance(shape, dict) else {}
    kind = content.get("name")
    if kind in _WITHOUT_BOX:
        found.add(NO_BOX)
        return None
    numbers = functools.partial(_numbers, content, path, where)
    if kind == "rect":
        return tuple(numbers("x", "y", "width", "height"))
    if kind in ("polygon", "circle", "ellipse"):
        found.add(OUTLINE)
    if kind == "polygon":
        xs, ys = (_list(content, name, path, where) for name in ("all_points_x", "all_points_y"))
        if len(xs) == len(ys):
            return around_points(xs, ys)
    if kind == "circle":
        x, y, radius = numbers("cx", "cy", "r")
        return around_ellipse(x, y, radius, radius)
    if kind == "ellipse":
        angle = fields.finite(content.get("theta", 0)) or 0.0  # in radians
        return around_ellipse(*numbers("cx", "cy", "rx", "ry"), angle)
    what = f"shape_attributes is {fields.short(shape)}"
    raise DataError("shape", path, where, what, "draw it as a rectangle or a polygon")


def _numbers(shape: dict, path: Path, where: str, *names: str) -> list[float]:
    numbers = [fields.finite(shape.get(name)) for name in names]
    if None in numbers:
        what = f"shape_attributes is {fields.short(shape)}"
        raise DataError("shape", path, where, what, f"write numbers for {', '.join(names)}")
    return numbers


def _list(shape: dict, name: str, path: Path, where: str) -> list[float]:
    value = shape.get(name)
    numbers = [fields.finite(v) for v in value] if isinstance(value, list) else []
    if len(numbers) < 3 or None in numbers:
        what = f"{name} is {fields.short(value)}"
        raise DataError("shape", path, where, what, "write a number for each of its points")
    return numbers


_FORMAT = SplitFileFormat("via", "VGG Image Annotator", (".json", ".csv"), _is_via, _parse, _box)
