"""CrowdHuman: annotation_train.odgt and annotation_val.odgt, JSON with an image on each line.

A line has the ID of an image, whose file is Images/<ID>.jpg, and its `gtboxes`, each with a `tag`,
the full box `fbox`, the visible box `vbox` and the box of the head `hbox`: x, y, width and height
in pixels. As in the reference evaluation, full boxes of the class person are read. Objects with the
tag mask or with `ignore` in `extra`, such as crowds and reflections, are ignored regions. Full
boxes may extend beyond the image.
"""

import re
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import ascii_head, parse_json, read_lines
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

PERSON, MASK = "person", "mask"
_HEAD = 1 << 16


def find(root: Path) -> Layout | None:
    """Returns the layout of annotation_<split>.odgt in a folder, or of one such file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_CROWDHUMAN, root)


def _is_crowdhuman(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    return b'"gtboxes"' in head and re.search(rb'"ID"\s*:', head) is not None


def _parse(path: Path, guard: Guard) -> Content:
    entries = []
    for number, line in read_lines(path):
        with guard:
            where = f"line {number}"
            record = parse_json(line, path, where)
            name = fields.text(record, "ID", path, where)
            found = fields.field(record, "gtboxes", path, where)
            found = fields.entries(found, "gtboxes", "objects", path, where)
            regions = []
            for place, entry in enumerate(found):
                with guard:
                    regions.append(_region(entry, place, path, where))
            entries.append(ImageEntry([f"{name}.jpg", name], where, regions))
    return Content(entries, (PERSON,))


def _region(entry: Any, number: int, path: Path, where: str) -> Region:
    place = f"gtboxes {number}"
    tag = fields.field(entry, "tag", path, f"{where}: {place}")
    if tag not in (PERSON, MASK):
        what, fix = f"the tag is {fields.short(tag)}", f"write {PERSON}, or {MASK} to ignore it"
        raise DataError("tag", path, f"{where}: {place}", what, fix)
    extra = entry.get("extra") or {}
    if not isinstance(extra, dict):
        what, fix = f"extra is {fields.short(extra)}", "write a JSON object"
        raise DataError("extra", path, f"{where}: {place}", what, fix)
    ignored = fields.flag(extra, "ignore", path, f"{where}: {place}: extra")
    return Region(place, PERSON, entry.get("fbox"), tag == MASK or ignored)


def _box(shape: Any, path: Path, where: str, found: set[str]) -> Box:
    numbers = [fields.finite(value) for value in shape] if isinstance(shape, list) else []
    if len(numbers) != 4 or None in numbers:
        what, fix = f"fbox is {fields.short(shape)}", "write [x, y, width, height], numbers"
        raise DataError("fbox", path, where, what, fix)
    return tuple(numbers)


_CROWDHUMAN = SplitFileFormat(
    "crowdhuman",
    "CrowdHuman",
    (".odgt",),
    _is_crowdhuman,
    _parse,
    _box,
    image_folders=("Images", "CrowdHuman_{split}/Images"),
)
