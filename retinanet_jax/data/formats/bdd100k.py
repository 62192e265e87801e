"""Scalabel's JSON, the format of BDD100K: frames with labels, each with a category and a box2d.

A file is a list of frames, or an object with such a list as `frames`. The corners x1, y1, x2, y2 of
a box are pixels inside it, as in scalabel.label.transforms: its width is x2 - x1 + 1. Labels whose
attributes have `crowd` or `ignored` are ignored regions. Labels without a box2d, such as lanes and
drivable areas, are left out. BDD100K's first release has a file for each image, with `objects` in
place of `labels`, and names without a suffix.
"""

import re
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import ascii_head, parse_json, read_text
from retinanet_jax.data.annotations.ignore_marks import is_ignored
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

NO_BOX2D = "labels without a box2d, left out"
_HEAD = 1 << 16
_FOLDERS = ("labels/det_20", "labels/100k/train", "labels/100k/val")
_SIDES = "x1", "y1", "x2", "y2"


def find(root: Path) -> Layout | None:
    """Returns the layout of Scalabel's files in a folder, its splits or labels/, or of one file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_FORMAT, root, _FOLDERS)


def _is_scalabel(path: Path) -> bool:
    """Whether a file begins as Scalabel's do, with a box or a lane among the first labels.

    That of one image, of BDD100K's first release, may have none.
    """
    head = ascii_head(path, _HEAD)
    has_labels = re.search(rb'"(labels|objects)"\s*:\s*\[', head)
    has_shape = re.search(rb'"(box2d|poly2d)"\s*:\s*[\[{]', head)
    is_empty = all(name in head for name in (b'"frames"', b'"objects"', b'"timestamp"'))
    return bool(re.match(rb"[^\[{]*[\[{]", head) and has_labels and (has_shape or is_empty))


def _parse(path: Path, guard: Guard) -> Content:
    entries = []
    for number, frame in enumerate(_frames(parse_json(read_text(path), path), path)):
        with guard:
            where = f"frame {number}"
            name = str(fields.field(frame, "name", path, where))
            labels = frame.get("labels", frame.get("objects")) or []
            regions = []
            for place, label in enumerate(fields.entries(labels, "labels", "labels", path, where)):
                with guard:
                    regions.append(_region(place, label, path, where))
            video = frame.get("videoName")
            names = [f"{video}/{name}", name] if isinstance(video, str) else [name]
            where = f"frame {fields.short(name)}"
            entries.append(ImageEntry(names, where, regions, _size(frame.get("size"))))
    return Content(entries)


def _frames(content: Any, path: Path) -> list[Any]:
    """The frames of a file; the one of a file about an image has the name of the file's object."""
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list):
        what = f"is {fields.short(content)}"
        raise DataError("annotation file", path, "", what, "write a list of frames")
    if isinstance(content, dict) and "name" in content:
        named = {"name": content["name"]}
        return [named | frame if isinstance(frame, dict) else frame for frame in frames]
    return frames


def _size(size: Any) -> tuple[int, int] | None:
    return fields.size(size.get("height"), size.get("width")) if isinstance(size, dict) else None


def _region(number: int, label: Any, path: Path, where: str) -> Region:
    entry = label if isinstance(label, dict) else {}
    place = f"label {fields.short(entry.get('id', number))}"
    crowd = is_ignored(entry.get("attributes"), path, f"{where}: {place}")
    box = entry.get("box2d") if entry else label
    return Region(place, entry.get("category"), box, crowd)


def _box(shape: Any, path: Path, where: str, found: set[str]) -> Box | None:
    if shape is None:
        found.add(NO_BOX2D)
        return None
    x1, y1, x2, y2 = fields.numbers(shape, _SIDES, path, f"{where}: box2d")
    return x1, y1, x2 - x1 + 1, y2 - y1 + 1


_FORMAT = SplitFileFormat(
    "bdd100k",
    "Scalabel JSON (BDD100K)",
    (".json",),
    _is_scalabel,
    _parse,
    _box,
    image_folders=("images/100k/{split}",),
)
