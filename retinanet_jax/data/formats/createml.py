"""CreateML's JSON: a list of images with boxes, each by its center and size in pixels.

One file lists all images of a split, or, as labelImg writes them, one image each.
"""

import re
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import ascii_head, parse_json, read_text
from retinanet_jax.data.annotations.outlines import Box
from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_content import (
    Content,
    ImageEntry,
    Region,
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_files import find_layout_of
from retinanet_jax.data.data_errors import DataError, Guard

_IMAGE_FIELDS = ("image", "imagefilename", "filename")
_OBJECTS_FIELDS = ("annotations", "annotation")
_HEAD = 1 << 14


def find(root: Path) -> Layout | None:
    """Returns the layout of CreateML's files in a folder and its split folders, or of one file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_FORMAT, root)


def _is_createml(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    names_image = re.search(rb'"(image|imagefilename|filename)"\s*:\s*"', head)
    objects = re.search(rb'"annotations?"\s*:\s*\[\s*\]|"coordinates"\s*:\s*\{', head)
    return bool(re.match(rb"[^\[{]*\[\s*\{", head) and names_image and objects)


def _parse(path: Path, guard: Guard) -> Content:
    content = parse_json(read_text(path), path)
    if not isinstance(content, list):
        what = f"is {fields.short(content)}"
        raise DataError("annotation file", path, "", what, "write a list of images")
    entries = []
    for number, entry in enumerate(content):
        with guard:
            where = f"image {number}"
            named = isinstance(entry, dict) and [f for f in _IMAGE_FIELDS if f in entry]
            name = fields.field(entry, named[0] if named else "image", path, where)
            listed = [entry[f] for f in _OBJECTS_FIELDS if entry.get(f)]
            objects = listed[0] if listed else []
            objects = fields.entries(objects, "annotations", "objects", path, where)
            regions = [_region(n, found) for n, found in enumerate(objects)]
            entries.append(ImageEntry([name], f"image {fields.short(name)}", regions))
    return Content(entries)


def _region(number: int, found: Any) -> Region:
    entry = found if isinstance(found, dict) else {}
    return Region(f"object {number}", entry.get("label"), entry.get("coordinates"))


def _box(shape: Any, path: Path, where: str, found: set[str]) -> Box:
    names = "x", "y", "width", "height"
    x, y, width, height = fields.numbers(shape, names, path, f"{where}: coordinates")
    return x - width / 2, y - height / 2, width, height


_FORMAT = SplitFileFormat("createml", "CreateML JSON", (".json",), _is_createml, _parse, _box)
