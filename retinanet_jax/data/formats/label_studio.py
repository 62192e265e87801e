"""Label Studio's own JSON and JSON-MIN; its exports as COCO and YOLO are read as those formats.

Rectangles are read, as are the bounding boxes of rotated rectangles, ellipses and polygons. Brushes
and key points have no box and are left out. Numbers are percent of the image's size. The JSON does
not contain the images: they are found by name, with or without the prefix of an upload.
"""

import contextlib
import math
import re
import urllib.parse
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import (
    ascii_head,
    parse_json,
    read_text,
    suffix_of,
)
from retinanet_jax.data.annotations.outlines import (
    Box,
    around_ellipse,
    around_points,
    around_rotated,
)
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
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

LATEST = "tasks with several annotations, the latest used"
WITHOUT = "tasks without an annotation, left out"
_HEAD = 1 << 16
_POINTS = "write at least three [x, y] pairs, in percent"
_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")


def find(root: Path) -> Layout | None:
    """Returns the layout of Label Studio's files in a folder and its split folders, or of one file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    return find_layout_of(_FORMAT, root)


def _is_label_studio(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    # "data_row" is Labelbox's, "box2d" Scalabel's.
    if not re.match(rb"[^\[{]*\[\s*\{", head) or b'"data_row"' in head or b'"box2d"' in head:
        return False
    is_task = re.search(rb'"(annotations|completions)"\s*:\s*\[', head) and b'"data"' in head
    is_task = is_task and re.search(rb'"(result|predictions|was_cancelled)"\s*:', head)
    return bool(is_task) or re.search(rb'"[a-z]*labels"\s*:\s*\[', head) is not None


def _parse(path: Path, guard: Guard) -> Content:
    content = parse_json(read_text(path), path)
    if not isinstance(content, list):
        what = f"is {fields.short(content)}"
        raise DataError("annotation file", path, "", what, "export the annotations again as JSON")
    entries: list[ImageEntry] = []
    older = _older(content, path)
    replaced = dict.fromkeys(fields.short(content[number]["id"]) for number in sorted(older))
    notes = [(LATEST, f"{path}: task {task}") for task in replaced]
    for number, task in enumerate(content):
        if number in older:
            continue
        with guard:
            where = f"[{number}]"
            if not isinstance(task, dict):
                what = f"is {fields.short(task)}"
                raise DataError("task", path, where, what, "write a JSON object")
            where = f"task {fields.short(task['id'])}" if "id" in task else where
            results = _results(task, path, where, notes)
            if results is not None:
                name = _image_name(task.get("data", task), path, where)
                entries.append(ImageEntry(_variants(name), where, _regions(results, path, where)))
    return Content(entries, notes=tuple(notes))


def _older(tasks: list, path: Path) -> set[int]:
    """The numbers of entries of JSON-MIN that a later annotation of the same task replaces.

    JSON-MIN has an entry for each annotation of a task. The others have a list of annotations.
    """
    times: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for number, task in enumerate(tasks):
        if isinstance(task, dict) and {"id", "updated_at"} <= task.keys():
            with contextlib.suppress(DataError):  # which reading it will raise
                key = str(task["id"]), _image_name(task.get("data", task), path, "")
                times.setdefault(key, []).append((str(task["updated_at"] or ""), number))
    return {n for found in times.values() for time, n in found if time < max(found)[0]}


def _results(task: dict, path: Path, where: str, notes: list[tuple[str, str]]) -> list | None:
    """The shapes of a task; None where it was skipped or is not annotated yet."""
    listed = task.get("annotations", task.get("completions"))
    if listed is None:  # JSON-MIN: the shapes are values of the task
        found = [value for value in task.values() if isinstance(value, list)]
        return [shape for value in found for shape in value if isinstance(shape, dict)]
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        what = f"annotations is {fields.short(listed)}"
        raise DataError("annotations", path, where, what, "export the annotations again as JSON")
    done = [entry for entry in listed if not entry.get("was_cancelled")]
    if not done:
        notes.append((WITHOUT, f"{path}: {where}"))
        return None
    if len(done) > 1:
        notes.append((LATEST, f"{path}: {where}"))
    latest = max(done, key=lambda entry: str(entry.get("updated_at") or ""))
    results = latest.get("result")
    if not isinstance(results, list):
        what = f"result is {fields.short(results)}"
        raise DataError("result", path, where, what, "export the annotations again as JSON")
    return results


def _image_name(data: Any, path: Path, where: str) -> str:
    """The address of the image of a task: `image`, or the one value with the suffix of an image."""
    values = data if isinstance(data, dict) else {}
    named = [v for v in (values.get("image"), values.get("img")) if isinstance(v, str)]
    texts = [value for value in values.values() if isinstance(value, str)]
    named = named[:1] or [v for v in texts if suffix_of(v.partition("?")[0]) in IMAGE_SUFFIXES]
    if len(named) != 1:
        what = f"data is {fields.short(data)}"
        raise DataError("file name", path, where, what, "name one image, under 'image'")
    return named[0]


def _variants(name: str) -> list[str]:
    """What the file may be called: as stated, decoded, and without the prefix of an upload."""
    address, _, query = name.partition("?")
    local = urllib.parse.parse_qs(query).get("d")
    stated = local[0] if local else urllib.parse.unquote(address)
    folder, slash, last = stated.replace("\\", "/").rpartition("/")
    return list(dict.fromkeys([stated, folder + slash + _UPLOAD.sub("", last, count=1), name]))


def _regions(results: list, path: Path, where: str) -> list[Region]:
    """The shapes; a label that is a result of its own is joined to the shape with its id."""
    labels: dict[Any, Any] = {}
    shapes: dict[Any, tuple[dict, dict]] = {}
    for number, result in enumerate(results):
        if not isinstance(result, dict):
            what = f"result {number} is {fields.short(result)}"
            raise DataError("result", path, where, what, "export the annotations again as JSON")
        value = result.get("value", result)
        value = value if isinstance(value, dict) else {}
        key = str(result.get("id", number))
        named = next((v for k, v in value.items() if k.endswith("labels")), None)
        if named is not None:
            labels[key] = named[0] if isinstance(named, list) and len(named) == 1 else named
        if not {"choices", "text", "rating"} & value.keys():
            shapes.setdefault(key, (value, result))
    numbered = enumerate(shapes.items())
    return [Region(f"result {n}", labels.get(key), shape) for n, (key, shape) in numbered]


def _box(shape: tuple[dict, dict], path: Path, where: str, found: set[str]) -> Box | None:
    """In shares of the image's size."""
    value, result = shape
    if result.get("image_rotation") not in (None, 0):
        what = f"image_rotation is {fields.short(result['image_rotation'])}"
        fix = "rotate the image file and annotate it again"
        raise DataError("image_rotation", path, where, what, fix)
    angle = math.radians(fields.finite(value.get("rotation", 0)) or 0.0)
    # Rotation needs pixels, everything else is the same in shares.
    sides = ("original_width", "original_height")
    width, height = fields.numbers(result, sides, path, where) if angle else (1.0, 1.0)
    if min(width, height) <= 0:
        what = f"has the size {width:g} x {height:g}"
        raise DataError("original_width", path, where, what, "write the size of the image")
    if "points" in value:
        points = fields.points(value["points"], path, where, least=3, fix=_POINTS)
        box = around_points(*zip(*points, strict=True))
    elif "radiusX" in value:
        x, y, rx, ry = fields.numbers(value, ("x", "y", "radiusX", "radiusY"), path, where)
        box = around_ellipse(x * width, y * height, rx * width, ry * height, angle)
    elif {"x", "y", "width", "height"} <= value.keys() and "keypointlabels" not in value:
        x, y, w, h = fields.numbers(value, ("x", "y", "width", "height"), path, where)
        box = x * width, y * height, w * width, h * height
        if angle:  # about the top left corner
            cos, sin = math.cos(angle) / 2, math.sin(angle) / 2
            x, y, w, h = box
            box = around_rotated(x + w * cos - h * sin, y + w * sin + h * cos, w, h, angle)
    else:
        found.add(NO_BOX)
        return None
    if angle or "points" in value or "radiusX" in value:
        found.add(OUTLINE)
    scale = 100 * width, 100 * height
    return tuple(side / scale[place % 2] for place, side in enumerate(box))


_FORMAT = SplitFileFormat(
    name="label_studio",
    tool="Label Studio JSON",
    suffixes=(".json",),
    is_one=_is_label_studio,
    parse=_parse,
    box=_box,
    normalized=True,
)
