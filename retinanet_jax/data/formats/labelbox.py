"""Labelbox exports: v2 as NDJSON (one data row per line) or as a list, and the JSON list of v1.

Bounding boxes are read, including those of polygons. Masks, which are images on Labelbox's servers,
and points and lines, which have no box, are left out. If a data row has several labels, as with
consensus, the one selected as the best is used, or else a benchmark, or else the latest. The images
are found by `external_id`, `global_key`, the address in `row_data`, or the id of the data row.
"""

import re
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.file_names import names_of_address
from retinanet_jax.data.annotations.folder_files import ascii_head, suffix_of
from retinanet_jax.data.annotations.outlines import Box, around_points
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
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats import labelbox_rows as rows_lib
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

WITHOUT = "data rows without a label or skipped, left out"
NOT_IMAGES = "data rows that are not images, left out"
MASKS = "masks, which are not in the export, left out"
_BOXES = ("bounding_box", "bbox")  # export v2, v1
_MASKS = ("mask", "composite_mask", "instanceURI")  # v1 has the last for every object
_WITHOUT_BOX = ("point", "line")
_SHAPES = (*_BOXES, "polygon", *_WITHOUT_BOX, *_MASKS)
_HEAD = 1 << 16


def find(root: Path) -> Layout | None:
    """Returns the layout of Labelbox's files in a folder and its split folders, or of one file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_FORMAT, root)


def _is_labelbox(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    is_v1 = re.search(rb'"Labeled Data"\s*:', head) and re.search(rb'"Label"\s*:', head)
    return bool(is_v1) or re.search(rb'"data_row"\s*:\s*\{', head) is not None


def _inner_splits(path: Path) -> list[str]:
    """The splits of the data rows; none where no row states one."""
    if not rows_lib.may_have_splits(path):
        return []
    entries = _parse(path, Guard("skip", Report())).entries
    return list(dict.fromkeys(entry.split for entry in entries if entry.split is not None))


def _parse(path: Path, guard: Guard) -> Content:
    entries: list[ImageEntry] = []
    for where, row in rows_lib.read_rows(path, guard):
        with guard:
            entries.append(_entry(row, path, where))
    if any(entry.split is not None for entry in entries):
        entries = [entry._replace(split=entry.split or "train") for entry in entries]
    return Content(entries)


def _entry(row: dict, path: Path, where: str) -> ImageEntry:
    """A data row; without names, to leave it out, if it is not an image or has no label."""
    split = rows_lib.split_of(row, path, where)
    media = rows_lib.part(row, "media_attributes", path, where)
    kind = media.get("mime_type") or media.get("mimeType") or "image/"
    label, notes = rows_lib.label_of(row, path, where)
    annotations = rows_lib.part(label or {}, "annotations", path, where)
    if not str(kind).startswith("image/") or "frames" in annotations:
        return ImageEntry([], where, [], split=split, notes=(NOT_IMAGES,))
    if label is None:
        return ImageEntry([], where, [], split=split, notes=(WITHOUT,))
    names = _names(rows_lib.part(row, "data_row", path, where), path, where)
    regions = _regions(annotations, path, where)
    size = fields.size(media.get("height"), media.get("width"))
    return ImageEntry(names, where, regions, size, split, notes)


def _regions(annotations: dict, path: Path, where: str) -> list[Region]:
    """The objects with what is needed of their shapes, since an export may be large."""
    others = annotations.keys() - {"objects", "classifications", "relationships"}
    if others and "objects" not in annotations:
        what = f"has a label with the fields {', '.join(map(fields.short, sorted(others)))}"
        raise DataError("label", path, where, what, "export the annotations again")
    regions = []
    for number, entry in enumerate(rows_lib.part(annotations, "objects", path, where, list)):
        found = entry if isinstance(entry, dict) else {}
        name = next((found[n] for n in ("name", "title", "value") if found.get(n)), None)
        shape = {key: found[key] for key in _SHAPES if found.get(key) is not None}
        shape = shape or ({"fields": list(found)} if found else entry)
        regions.append(Region(f"object {number}", name, shape))
    return regions


def _names(data: dict, path: Path, where: str) -> list[str]:
    """What the file of the image may be called, each as stated and decoded."""
    stated = [data.get(name) for name in ("external_id", "global_key", "row_data", "id")]
    texts = [text for text in stated if isinstance(text, str) and text.strip()]
    plain = [re.sub(r"[?#].*", "", t) if "://" in t else t for t in texts]
    names = list(dict.fromkeys(name for text in plain for name in names_of_address(text)))
    if not names:
        what, fix = f"data_row is {fields.short(data)}", "write the name of its file as external_id"
        raise DataError("file name", path, where, what, fix)
    # Names of files before keys, for the message if there is no such file.
    return sorted(names, key=lambda name: suffix_of(name) not in IMAGE_SUFFIXES)


def _box(shape: Any, path: Path, where: str, found: set[str]) -> Box | None:
    if not isinstance(shape, dict) or not shape:
        what, fix = f"is {fields.short(shape)}", "write a JSON object with its shape"
        raise DataError("object", path, where, what, fix)
    for name in _BOXES:
        if name in shape:
            sides = ("left", "top", "width", "height")
            return tuple(fields.numbers(shape[name], sides, path, f"{where}: {name}"))
    if "polygon" in shape:
        found.add(OUTLINE)
        points = fields.points(shape["polygon"], path, where, name="polygon", least=3)
        return around_points(*zip(*points, strict=True))
    for names, note in ((_WITHOUT_BOX, NO_BOX), (_MASKS, MASKS)):
        if any(name in shape for name in names):
            found.add(note)
            return None
    what = f"has no known shape, only the fields {', '.join(map(str, shape['fields'][:8]))}"
    raise DataError("shape", path, where, what, "draw it as a bounding box or a polygon")


_FORMAT = SplitFileFormat(
    name="labelbox",
    tool="Labelbox export",
    suffixes=(".ndjson", ".jsonl", ".json"),
    is_one=_is_labelbox,
    parse=_parse,
    box=_box,
    inner_splits=_inner_splits,
)
