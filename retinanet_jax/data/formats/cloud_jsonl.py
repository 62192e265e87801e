"""JSON lines of Azure ML's AutoML and of Google's Vertex AI, an image on each line.

Azure ML has `image_url`, `image_details` and `label`, a list of objects with a label, topX, topY,
bottomX and bottomY, or with a polygon. Vertex AI has `imageGcsUri`, `boundingBoxAnnotations` with
displayName, xMin, yMin, xMax and yMax, and may name the split of an image in
`dataItemResourceLabels`. Boxes are fractions of the image; images are found by name, wherever they
are. Lines of Vertex AI without `boundingBoxAnnotations`, as of images that were not annotated, are
left out.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.file_names import names_of_address
from retinanet_jax.data.annotations.folder_files import (
    ascii_head,
    has_line,
    parse_json,
    read_lines,
)
from retinanet_jax.data.annotations.ignore_marks import is_ignored
from retinanet_jax.data.annotations.outlines import Box, around_points
from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_content import (
    OUTLINE,
    Content,
    ImageEntry,
    Region,
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_files import find_layout_of
from retinanet_jax.data.annotations.split_names import is_split_name
from retinanet_jax.data.data_errors import DataError, Guard, Report

WITHOUT = "images without boundingBoxAnnotations, left out"
_SUFFIXES = (".jsonl", ".json", ".ndjson")
_RESOURCES, _USE = "dataItemResourceLabels", "aiplatform.googleapis.com/ml_use"
_AZURE_SIDES = "topX", "topY", "bottomX", "bottomY"
_VERTEX_SIDES = "xMin", "yMin", "xMax", "yMax"
_HEAD = 1 << 16


class _Fields(NamedTuple):
    """The names of the fields of a line: the image, its objects, and the class of an object."""

    image: str
    objects: str
    label: str


_AZURE_FIELDS = _Fields("image_url", "label", "label")
_VERTEX_FIELDS = _Fields("imageGcsUri", "boundingBoxAnnotations", "displayName")


def find(root: Path) -> Layout | None:
    """Returns the layout of such files in a folder and its split folders, or of one file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_AZURE, root) or find_layout_of(_VERTEX, root)


def _is_azure(path: Path) -> bool:
    """Whether the label of a line is a list of objects: that of an image alone is its class."""
    head = ascii_head(path, _HEAD)
    marks = rb'"image_url"\s*:', rb'"label"\s*:\s*\[', rb'"(topX|polygon)"\s*:'
    return all(re.search(mark, head) for mark in marks)


def _is_vertex(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    return b'"imageGcsUri"' in head and b'"boundingBoxAnnotations"' in head


def _parse_azure(path: Path, guard: Guard) -> Content:
    entries = []
    for where, line in _lines(path):
        with guard:
            record = parse_json(line, path, where)
            fields.field(record, _AZURE_FIELDS.objects, path, where)
            entries.append(_entry(record, _AZURE_FIELDS, path, where, guard))
    return Content(entries)


def _parse_vertex(path: Path, guard: Guard) -> Content:
    entries = []
    for where, line in _lines(path):
        with guard:
            record = parse_json(line, path, where)
            fields.field(record, _VERTEX_FIELDS.image, path, where)
            split = _split_of(record, path, where)
            if _VERTEX_FIELDS.objects in record:
                entry = _entry(record, _VERTEX_FIELDS, path, where, guard)
            else:
                entry = ImageEntry([], where, [], notes=(WITHOUT,))
            entries.append(entry._replace(split=split))
    if any(entry.split is not None for entry in entries):
        entries = [entry._replace(split=entry.split or "train") for entry in entries]
    return Content(entries)


def _lines(path: Path) -> list[tuple[str, str]]:
    return [(f"line {number}", line) for number, line in read_lines(path)]


def _entry(record: Any, names: _Fields, path: Path, where: str, guard: Guard) -> ImageEntry:
    address = fields.text(record, names.image, path, where)
    found = fields.entries(record[names.objects], names.objects, "objects", path, where)
    regions = []
    for number, entry in enumerate(found):
        with guard:
            place = f"object {number}"
            label = fields.field(entry, names.label, path, f"{where}: {place}")
            crowd = is_ignored(entry, path, f"{where}: {place}")
            regions.append(Region(place, label, entry, crowd))
    size = _size(record.get("image_details"))
    return ImageEntry(names_of_address(address), where, regions, size)


def _size(details: Any) -> tuple[int, int] | None:
    """The (height, width) in numbers or as text such as '499px'."""
    stated = details if isinstance(details, dict) else {}
    sides = (stated.get("height"), stated.get("width"))
    return fields.size(*(s.removesuffix("px") if isinstance(s, str) else s for s in sides))


def _split_of(record: dict, path: Path, where: str) -> str | None:
    """The split that a line states: training, validation or test."""
    resources = record.get(_RESOURCES)
    use = resources.get(_USE) if isinstance(resources, dict) else None
    if use in (None, "", "unassigned"):
        return None
    if not isinstance(use, str) or not is_split_name(use):
        what, fix = f"{_USE} is {fields.short(use)}", "write training, validation or test"
        raise DataError("split", path, where, what, fix)
    return use


def _splits_of_vertex(path: Path) -> Sequence[str]:
    """The splits of a file; none if no line states one."""
    if not has_line(path, re.compile(re.escape(_USE.encode()))):
        return []
    entries = _parse_vertex(path, Guard("skip", Report())).entries
    return list(dict.fromkeys(entry.split for entry in entries if entry.split is not None))


def _azure_box(shape: dict, path: Path, where: str, found: set[str]) -> Box:
    if "topX" in shape or "polygon" not in shape:
        return _box(shape, _AZURE_SIDES, path, where)
    found.add(OUTLINE)
    rings = shape["polygon"]
    values = [v for ring in rings for v in ring] if _are_lists(rings) else [None]
    numbers = [fields.finite(value) for value in values]
    if len(numbers) < 6 or len(numbers) % 2 or None in numbers:
        what, fix = f"polygon is {fields.short(rings)}", "write lists [x1, y1, x2, y2, ...]"
        raise DataError("polygon", path, where, what, fix)
    fields.check_fractions(numbers, path, where)
    return around_points(numbers[::2], numbers[1::2])


def _are_lists(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, list) for one in value)


def _vertex_box(shape: dict, path: Path, where: str, found: set[str]) -> Box:
    return _box(shape, _VERTEX_SIDES, path, where)


def _box(shape: dict, sides: Sequence[str], path: Path, where: str) -> Box:
    stated = {side: shape[side] for side in sides if side in shape}
    x1, y1, x2, y2 = corners = fields.numbers(stated, sides, path, where)
    fields.check_fractions(corners, path, where)
    return x1, y1, x2 - x1, y2 - y1


_AZURE = SplitFileFormat(
    "cloud_jsonl",
    "JSON lines of Azure ML",
    _SUFFIXES,
    _is_azure,
    _parse_azure,
    _azure_box,
    normalized=True,
    box_form="corners",
)
_VERTEX = SplitFileFormat(
    "cloud_jsonl",
    "JSON lines of Vertex AI",
    _SUFFIXES,
    _is_vertex,
    _parse_vertex,
    _vertex_box,
    inner_splits=_splits_of_vertex,
    normalized=True,
    box_form="corners",
)
