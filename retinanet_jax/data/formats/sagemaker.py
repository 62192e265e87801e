"""Manifests of Amazon SageMaker Ground Truth and Rekognition Custom Labels: JSON, an image a line.

Each line has the address of an image, `source-ref`; the boxes that a labeling job drew, under the
name of its label attribute; and their classes, in `class-map` of `<attribute>-metadata`. Boxes are
left, top, width and height in pixels. The images are found by name, wherever they lie.

A failed task has a `failure-reason` in the metadata and no boxes; it is left out and noted. If a
later job adjusted the boxes of a job, the latest boxes are used, even if both manifests are there.
Labels of other types, such as image classes and verifications, are not read.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.file_names import names_of_address
from retinanet_jax.data.annotations.folder_files import (
    ascii_head,
    list_folder,
    parse_json,
    read_lines,
)
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

FAILED = "tasks that failed, left out"
WITHOUT = "lines without boxes from a labeling job, left out"
ADJUSTED = "boxes that a later job adjusted, the latest used"
_TYPE = "groundtruth/object-detection"
_METADATA = "-metadata"
_OUTPUT = "manifests/output"
_HEAD = 1 << 16


def find(root: Path) -> Layout | None:
    """Returns the layout of the manifests in a folder and its split folders, or of one file.

    The downloaded output of a labeling job is found, too: <job>/manifests/output/output.manifest.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    jobs = list_folder(root).folders if root.is_dir() else [p.name for p in root.parents[2:3]]
    return find_layout_of(_FORMAT, root, [_OUTPUT, *(f"{job}/{_OUTPUT}" for job in jobs)])


def _is_manifest(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    marks = _TYPE.encode(), b'"failure-reason"', b'"class_id"'
    start = head.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xff\xfe").lstrip()[:1]
    return start == b"{" and b'"source-ref"' in head and any(mark in head for mark in marks)


def _parse(path: Path, guard: Guard) -> Content:
    entries: list[ImageEntry] = []
    notes: list[tuple[str, str]] = []
    maps: list[dict] = []
    for number, line in read_lines(path):
        with guard:
            where = f"line {number}"
            task = parse_json(line, path, where)
            name = fields.text(task, "source-ref", path, where)
            jobs = _jobs(task, path, where, notes)
            if not jobs:
                continue
            label, class_map = task[jobs[-1]], _metadata(task, jobs[-1]).get("class-map")
            if isinstance(class_map, dict) and class_map not in maps[-1:]:
                maps.append(class_map)
            regions = _regions(label, class_map, path, where, guard)
            history = [(job, _metadata(task, job).get("creation-date")) for job in jobs]
            names, size = names_of_address(name), _size(label)
            entries.append(ImageEntry(names, where, regions, size, history=history))
    return Content(entries, _class_names(maps), tuple(notes))


def _metadata(task: dict, attribute: str) -> dict:
    metadata = task.get(attribute + _METADATA)
    return metadata if isinstance(metadata, dict) else {}


def _jobs(task: dict, path: Path, where: str, notes: list[tuple[str, str]]) -> list[str]:
    """The label attributes with boxes, of which each adjusted the one before; else noted, none."""
    is_type = {name: _metadata(task, name).get("type") == _TYPE for name in task}
    has_boxes = {name: isinstance(v, dict) and "annotations" in v for name, v in task.items()}
    found = [name for name in task if is_type[name] or has_boxes[name]]
    if len(found) > 1:
        by_date = {str(_metadata(task, name).get("creation-date")): name for name in found}
        if len(by_date) < len(found) or not any(
            "adjustment-status" in _metadata(task, name) for name in found
        ):
            what = f"has boxes of several labeling jobs: {', '.join(map(fields.short, found))}"
            raise DataError("label attribute", path, where, what, "keep the boxes of one job")
        notes.append((ADJUSTED, f"{path}: {where}"))
        return [by_date[date] for date in sorted(by_date)]
    if not found:
        metadata = [value for value in task.values() if isinstance(value, dict)]
        failed = any("failure-reason" in value for value in metadata)
        notes.append((FAILED if failed else WITHOUT, f"{path}: {where}"))
    return found


def _regions(label: Any, class_map: Any, path: Path, where: str, guard: Guard) -> list[Region]:
    annotations = fields.field(label, "annotations", path, where)
    annotations = fields.entries(annotations, "annotations", "boxes", path, where)
    if annotations and not isinstance(class_map, dict):
        what = f"class-map of the metadata is {fields.short(class_map)}"
        fix = 'write class names by class number: {"0": "dog"}'
        raise DataError("class-map", path, where, what, fix)
    regions = []
    for number, entry in enumerate(annotations):
        with guard:
            place = f"{where}: annotation {number}"
            class_id = fields.integer(entry, "class_id", path, place, guard.report)
            if str(class_id) not in class_map:
                what, fix = f"class_id {class_id} is not in class-map", "add it there, or fix it"
                raise DataError("unknown class", path, place, what, fix)
            regions.append(Region(f"annotation {number}", class_map[str(class_id)], entry))
    return regions


def _size(label: dict) -> tuple[int, int] | None:
    sizes = label.get("image_size")
    size = sizes[0] if isinstance(sizes, list) and len(sizes) == 1 else sizes
    return fields.size(size.get("height"), size.get("width")) if isinstance(size, dict) else None


def _class_names(maps: Iterable[dict]) -> tuple[str, ...] | None:
    """The names of all maps in the order of their numbers; None where these are not the same.

    The map of a line has the classes of the job, or those of this line alone.
    """
    names: dict[int, str] = {}
    for key, name in (pair for found in maps for pair in found.items()):
        number = fields.as_integer(key)
        with contextlib.suppress(DataError):  # which an object of the class will raise
            name = fields.class_name(name, None, "", "")
            if number is None or names.setdefault(number, name) != name:
                return None
    listed = tuple(names[number] for number in sorted(names))
    return listed if len(set(listed)) == len(listed) else None


def _box(shape: dict, path: Path, where: str, found: set[str]) -> Box:
    names = "left", "top", "width", "height"
    numbers = fields.numbers(shape, names, path, where, lenient=True)
    if any(isinstance(shape[name], str) for name in names):
        found.add(fields.TEXT_NUMBER)
    return tuple(numbers)


_FORMAT = SplitFileFormat(
    name="sagemaker",
    tool="SageMaker Ground Truth manifest",
    suffixes=(".manifest", ".jsonl", ".json"),
    is_one=_is_manifest,
    parse=_parse,
    box=_box,
)
