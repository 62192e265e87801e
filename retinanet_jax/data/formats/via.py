"""VGG Image Annotator (VIA 1 and 2): its own JSON, its projects and its CSV.

Read are rectangles, and the bounding boxes of polygons, circles and ellipses. The class is the one
attribute of the regions, or of several the one that is called class, label or similar.
"""

import csv
import functools
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats import annotation_fields as fields
from retinanet_jax.data.formats.csv_files import split_of_file
from retinanet_jax.data.formats.folder_files import (
    is_split_name,
    list_folder,
    read_head,
    read_text,
    relative_name,
)
from retinanet_jax.data.formats.image_finder import ImageFinder
from retinanet_jax.data.formats.raw import Layout, RawImage, RawObject, RawSplit

OUTLINE = "polygons, circles or ellipses, bounding boxes taken"
NO_BOX = "points and lines, left out"
_CLASS_ATTRIBUTES = (
    *("class", "class_name", "label", "category", "name", "object", "object_name", "type"),
)
_WITHOUT_BOX = ("point", "polyline", "line")
_MAX_FILES = 20  # a folder with more JSON files has one for each image
_HEAD = 1 << 14

Box = tuple[float, float, float, float]


class Region(NamedTuple):
    """A shape of an image: `shape` and `attributes` as VIA's JSON has them."""

    where: str
    shape: Any
    attributes: Any


def find(root: Path) -> Layout | None:
    """VIA's files in a folder and its split folders, or one such file.

    Raises:
      DataError: several files may be meant.
    """
    folder = root if root.is_dir() else root.parent
    paths = [path for path in _candidates(root) if _is_via(path)]
    if not paths:
        return None
    splits: dict[str, Path] = {}
    for path in paths:
        split = split_of_file(path, folder) or "train"
        if split in splits:
            what = f"both {splits[split].name} and {path.name} annotate {split!r}"
            raise DataError("ambiguous file", root, "", what, "set data.root to one of the files")
        splits[split] = path
    read = functools.partial(read_split, folder, splits)
    return Layout("via", "VGG Image Annotator", tuple(splits), read, (folder,))


def _candidates(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.lower() in (".json", ".csv") else []
    names = [name for name in list_folder(root).folders if is_split_name(name)]
    folders = [root, *(root / name for name in [*names, "annotations"])]
    found = [[f / n for n in list_folder(f).with_suffix(".json", ".csv")] for f in folders]
    return [path for paths in found if len(paths) <= _MAX_FILES for path in paths]


def _is_via(path: Path) -> bool:
    head = read_head(path, _HEAD).replace(b"\0", b"")  # of UTF-16
    if path.suffix.lower() == ".csv":
        return b"region_shape_attributes" in head.partition(b"\n")[0]
    regions = b'"regions"' in head and b'"filename"' in head
    return b'"_via_' in head or regions or b'"shape_attributes"' in head


def read_split(root: Path, splits: dict[str, Path], split: str, guard: Guard) -> RawSplit:
    """The images of a split with their objects; see raw.Layout."""
    path, notes, images = splits[split], [], []
    entries = list(_csv_entries(path) if path.suffix.lower() == ".csv" else _json_entries(path))
    attribute = _class_attribute([region for _, regions in entries for region in regions], path)
    bases = (path.parent, root, root / "images", root / split, root / "images" / split)
    finder = ImageFinder(root, split if len(splits) > 1 else "", bases)
    for name, regions in entries:
        with guard:
            where = f"image {fields.short(name)}"
            if not isinstance(name, str) or not name.strip() or "\0" in name:
                what = f"filename is {fields.short(name)}"
                raise DataError("filename", path, where, what, "write the name of the image")
            image = finder.find(name.strip(), path, where)
            found: set[str] = set()
            objects = []
            for region in regions:
                with guard:
                    box = _box(region, path, f"{where}: {region.where}", found)
                    if box is not None:
                        label = _class_name(region, attribute, path, f"{where}: {region.where}")
                        objects.append(RawObject(label, box, region.where))
            notes.extend((reason, f"{path}: {where}") for reason in sorted(found))
            name = relative_name(image, root)
            images.append(RawImage(name, Path(image), path, tuple(objects), where))
    return RawSplit(tuple(images), notes=tuple(notes))


def _json_entries(path: Path) -> Iterator[tuple[Any, list[Region]]]:
    """(file name, regions) of the images of a JSON file or project."""
    content = _json(read_text(path), path, "")
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
        yield (
            entry.get("filename"),
            [
                Region(f"region {n}", r.get("shape_attributes"), r.get("region_attributes"))
                for n, r in enumerate(regions)
            ],
        )


def _csv_entries(path: Path) -> Iterator[tuple[Any, list[Region]]]:
    """(file name, regions) of the images of a CSV file, whose rows are regions."""
    images: dict[str, list[Region]] = {}
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            where = f"line {reader.line_num}"
            name = row.get("filename") or row.get("#filename") or ""
            regions = images.setdefault(name, [])
            shape = _json(row.get("region_shape_attributes") or "{}", path, where)
            if shape:
                attributes = _json(row.get("region_attributes") or "{}", path, where)
                regions.append(Region(where, shape, attributes))
    except csv.Error as error:
        what, fix = f"cannot be read as CSV ({error})", "export the annotations again"
        raise DataError("annotation file", path, "", what, fix) from error
    yield from images.items()


def _json(text: str, path: Path, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        what, fix = f"is not JSON ({str(error)[:200]})", "export the annotations again"
        raise DataError("annotation file", path, where, what, fix) from error


def _class_attribute(regions: list[Region], path: Path) -> str:
    """The name of the attribute that is the class.

    Raises:
      DataError: the regions have several attributes, none of which is called class or similar.
    """
    found: dict[str, None] = {}
    for region in regions:
        if isinstance(region.attributes, dict):
            found.update(dict.fromkeys(n for n, value in region.attributes.items() if value))
    by_name = {name.strip().lower().replace(" ", "_"): name for name in found}
    named = next((by_name[name] for name in _CLASS_ATTRIBUTES if name in by_name), None)
    if named is None and len(found) > 1:
        few = ", ".join(map(fields.short, list(found)[:5]))
        fix = "rename the one that is the class to 'class'"
        raise DataError("class attribute", path, "", f"regions have the attributes {few}", fix)
    return named or next(iter(found), "class")


def _class_name(region: Region, attribute: str, path: Path, where: str) -> str:
    attributes = region.attributes if isinstance(region.attributes, dict) else {}
    value = attributes.get(attribute)
    if isinstance(value, dict):  # of a checkbox
        checked = [name for name, is_set in value.items() if is_set]
        value = checked[0] if len(checked) == 1 else value
    if not isinstance(value, str) or not value.strip():
        what = f"{attribute} is {fields.short(value)}"
        raise DataError("class name", path, where, what, "set one class for the region")
    return value.strip()


def _box(region: Region, path: Path, where: str, found: set[str]) -> Box | None:
    """x, y, width, height around a shape; None for one without a box."""
    shape = region.shape if isinstance(region.shape, dict) else {}
    kind = shape.get("name")
    if kind in _WITHOUT_BOX:
        found.add(NO_BOX)
        return None
    if kind == "rect":
        return tuple(_numbers(shape, ("x", "y", "width", "height"), path, where))
    if kind in ("polygon", "circle", "ellipse"):
        found.add(OUTLINE)
    if kind == "polygon":
        xs, ys = (_list(shape, name, path, where) for name in ("all_points_x", "all_points_y"))
        if len(xs) == len(ys):
            return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    if kind == "circle":
        x, y, r = _numbers(shape, ("cx", "cy", "r"), path, where)
        return x - r, y - r, 2 * r, 2 * r
    if kind == "ellipse":
        x, y, rx, ry = _numbers(shape, ("cx", "cy", "rx", "ry"), path, where)
        angle = fields.finite(shape.get("theta", 0)) or 0.0  # in radians
        w = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
        h = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
        return x - w, y - h, 2 * w, 2 * h
    what = f"shape_attributes is {fields.short(region.shape)}"
    raise DataError("shape", path, where, what, "draw it as a rectangle or a polygon")


def _numbers(shape: dict, names: tuple[str, ...], path: Path, where: str) -> list[float]:
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
