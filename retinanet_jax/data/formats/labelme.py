"""labelme's JSON: one file per image, beside it or in another folder.

Rectangles are read, as are the bounding boxes of polygons, circles, masks and oriented rectangles.
Points and lines have no box and are left out. Shapes of one label with the same `group_id` are
parts of one object, as in labelme's own conversion to COCO. Files of X-AnyLabeling and AnyLabeling
have the same form.
"""

import functools
import math
import os
import re
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import (
    MAX_BYTES,
    ascii_head,
    decode_text,
    parse_json,
    read_many,
    relative_name,
)
from retinanet_jax.data.annotations.folder_parts import (
    ImageNames,
    Kind,
    PartsDataset,
    annotation_files,
    class_names_of,
    find_parts,
    left_out,
)
from retinanet_jax.data.annotations.ignore_marks import is_ignored
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawObject, RawSplit
from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError, Guard

GROUPED = "shapes with the same group_id, joined into one object"
IGNORED = "shapes with the label __ignore__, left out"
_FOLDERS = ("annotations", "labels", "labelme", "json", "jsons")
_OUTLINES = ("polygon", "oriented_rectangle", "rotation", "quadrilateral")
_WITHOUT_BOX = ("point", "points", "line", "lines", "linestrip")
# labelme's labels.txt begins with these.
_NO_CLASSES = ("__ignore__", "_background_")
_HEAD = 1 << 16

Corners = tuple[float, float, float, float]


def find(root: Path) -> Layout | None:
    """Returns the dataset in a folder.

    Raises:
      DataError: its list of class names is broken.
    """
    splits = find_parts(root, _KIND)
    if not splits:
        return None
    dataset = PartsDataset(root, splits, class_names_of(root, splits, _NO_CLASSES))
    read = functools.partial(read_split, dataset)
    return Layout("labelme", "labelme JSON", tuple(splits), read, (root,))


def _is_labelme(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    if b'"shapes"' not in head and b'"imageData"' in head:  # fields in alphabetical order
        head = ascii_head(path, MAX_BYTES)
    return re.search(rb'"shapes"\s*:\s*\[', head) is not None


_KIND = Kind(".json", _is_labelme, _FOLDERS)


def read_split(dataset: PartsDataset, split: str, guard: Guard) -> RawSplit:
    """Returns the images of a split with their objects; see raw.Layout."""
    part = dataset.splits[split]
    files = annotation_files(part, _KIND.suffix)
    names = ImageNames(part.images, files.keys(), part.apart)
    images, notes = [], left_out(dataset.root, dataset.splits.values(), _KIND)
    contents = read_many(list(files.values()))
    for (stem, file), data in zip(files.items(), contents, strict=True):
        path = Path(file)
        with guard:
            if isinstance(data, DataError):
                raise data
            content = _parse(data, path)
            if content is None:  # another JSON file of the folder
                continue
            image = _image_of(content, stem, names, dataset.root, path)
            objects = _objects(content["shapes"], path, dataset.class_names, guard, notes)
            name = relative_name(image, dataset.root)
            size = fields.size(content.get("imageHeight"), content.get("imageWidth"))
            images.append(RawImage(name, Path(image), path, objects, size=size))
    return RawSplit(tuple(images), dataset.class_names, notes=tuple(notes))


def _parse(data: bytes, path: Path) -> dict | None:
    """The content of a file; None where it is JSON of another kind."""
    content = parse_json(decode_text(data, path), path)
    if not isinstance(content, dict) or "shapes" not in content:
        return None
    if not isinstance(content["shapes"], list):
        what = f"shapes is {fields.short(content['shapes'])}"
        raise DataError("annotation file", path, "", what, "write a list")
    return content


def _image_of(content: dict, stem: str, names: ImageNames, root: Path, path: Path) -> str:
    """The path of the annotated image, which may be missing.

    `imagePath` is relative to the JSON file; where it is out of date, the image of its name in the
    folder of images, or that of the JSON file's own name.
    """
    stated = content.get("imagePath")
    if not isinstance(stated, str) or not stated.strip() or "\0" in stated:
        what = f"imagePath is {fields.short(stated)}"
        raise DataError("imagePath", path, "", what, "write the path of the image")
    stated = stated.strip().replace("\\", "/")
    beside = os.path.normpath(os.path.join(path.parent, stated))
    if Path(beside).is_relative_to(root) and os.path.isfile(beside):
        return beside
    base = os.path.join(os.path.dirname(stem), os.path.basename(stated))
    if base in names.names:
        return names.path(base)
    return names.only(stem, path, "imagePath") or names.path(base)


def _objects(
    shapes: list,
    path: Path,
    class_names: tuple[str, ...] | None,
    guard: Guard,
    notes: list[tuple[str, str]],
) -> tuple[RawObject, ...]:
    """The objects of an image; errors of single shapes are for the guard."""
    found: set[str] = set()
    joined: dict[tuple, tuple[str, str, Corners, bool]] = {}
    for number, shape in enumerate(shapes):
        with guard:
            where = f"shapes[{number}]"
            label = fields.text(shape, "label", path, where).strip()
            if label in _NO_CLASSES:
                found.add(IGNORED)
                continue
            if class_names is not None and label not in class_names:
                what, fix = f"label is {fields.short(label)}", "add it to the list of classes"
                raise DataError("class name", path, where, what, fix)
            corners = _corners(shape, path, where, found)
            if corners is None:
                found.add(NO_BOX)
                continue
            crowd = any(is_ignored(marks, path, where) for marks in _marks(shape))
            group = shape.get("group_id")
            key = (number,) if group is None else (label, str(group))
            if key in joined:
                found.add(GROUPED)
                _, where, other, marked = joined[key]
                corners = (*map(min, corners[:2], other[:2]), *map(max, corners[2:], other[2:]))
                crowd |= marked
            joined[key] = (label, where, corners, crowd)
    notes.extend((reason, str(path)) for reason in sorted(found))
    return tuple(
        RawObject(label, (x1, y1, x2 - x1, y2 - y1), where, crowd=crowd)
        for label, where, (x1, y1, x2, y2), crowd in joined.values()
    )


def _marks(shape: dict) -> tuple:
    """X-AnyLabeling has a field `difficult` and attributes, labelme has flags."""
    return shape, shape.get("flags"), shape.get("attributes")


def _corners(shape: dict, path: Path, where: str, found: set[str]) -> Corners | None:
    """x1, y1, x2, y2 around a shape; None for one without a box."""
    kind = shape.get("shape_type") or "polygon"  # as in files of old versions
    if kind in _WITHOUT_BOX:
        return None
    points = fields.points(shape.get("points"), path, where)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    corners = min(xs), min(ys), max(xs), max(ys)
    if kind == "rectangle" and len(points) >= 2:
        return corners
    if kind == "circle" and len(points) == 2:
        found.add(OUTLINE)
        radius = math.dist(*points)
        return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
    if kind == "mask" and len(points) == 2:  # from its first to its last pixel
        found.add(OUTLINE)
        return corners[0], corners[1], corners[2] + 1, corners[3] + 1
    if kind in _OUTLINES and len(points) >= 3:
        found.add(OUTLINE)
        return corners
    what = f"is a {fields.short(kind)} of {len(points)} points"
    raise DataError("shape", path, where, what, "draw it as a rectangle or a polygon")
