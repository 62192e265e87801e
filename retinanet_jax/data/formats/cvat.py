"""CVAT's own XML: 'CVAT for images 1.1', an <image> with shapes for each image, or tracks.

cvat_video.py has the tracks of 'CVAT for video 1.1'.

Boxes are read, as are the bounding boxes of rotated boxes, polygons, ellipses, masks and cuboids.
Points, lines and skeletons have no box and are left out.
"""

import math
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.class_lists import checked_class_names
from retinanet_jax.data.annotations.folder_files import ascii_head, read_bytes, text_encoding
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
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_files import files_of, find_layout_of
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats import cvat_video
from retinanet_jax.data.formats.voc_xml import parse_xml

_SHAPES = ("box", "polygon", "ellipse", "mask", "cuboid", "points", "polyline", "skeleton")
# Types of labels; those of tags, lines and skeletons have no boxes.
_BOX_TYPES = ("", "any", "rectangle", "bbox", "polygon", "ellipse", "mask", "cuboid")
_TAG = re.compile(r"""<(image|track)(\s(?:[^<>"']|"[^"]*"|'[^']*')*)>""")
_SUBSET = re.compile(r"\ssubset\s*=\s*([\"'])(.*?)\1")
_MAX_BYTES, _MAX_META = 1 << 30, 1 << 20


def find(root: Path) -> Layout | None:
    """Returns the layout of annotations.xml in a folder and its split folders, or of one file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    layout = find_layout_of(_FORMAT, root)
    if layout is not None and any(map(_begins_with_track, files_of(_FORMAT, root))):
        return layout._replace(tool="CVAT for video")
    return layout


def _is_cvat(path: Path) -> bool:
    head = ascii_head(path, 4096)
    return re.search(rb"<annotations[\s>]", head) is not None


def _begins_with_track(path: Path) -> bool:
    first = re.search(rb"<(image|track)\s", ascii_head(path, _MAX_META))
    return first is not None and first[1] == b"track"


def _inner_splits(path: Path) -> list[str]:
    """The subsets of the images or tracks of a project; none of a task or a broken file.

    By the text of their tags: to parse a large file at each start would take seconds.
    """
    try:
        data = read_bytes(path, _MAX_BYTES)
    except DataError:  # which reading it will raise
        return []
    tags = _TAG.findall(data.decode(text_encoding(data), "replace"))
    kind = min((name for name, _ in tags), default="")  # images, if there are some
    found = [_SUBSET.search(attributes) for name, attributes in tags if name == kind]
    stated = [unescape(match[2]) if match else "" for match in found]
    return list(dict.fromkeys(s or cvat_video.DEFAULT for s in stated)) if any(stated) else []


def _parse(path: Path, guard: Guard) -> Content:
    root = parse_xml(read_bytes(path, _MAX_BYTES), path)
    if cvat_video.has_tracks(root):
        entries, notes = cvat_video.read_tracks(root, path, _SHAPES, guard)
        return Content(entries, _class_names(root, path), notes)
    images, entries = root.findall("image"), []
    subsets = any(image.get("subset") for image in images)
    for image in images:
        name, size = image.get("name"), fields.size(image.get("height"), image.get("width"))
        where, regions = f"image {fields.short(name)}", []
        for number, shape in enumerate(shape for shape in image if shape.tag in _SHAPES):
            with guard:
                place = f"{shape.tag} {number}"
                regions.append(cvat_video.region_of(shape, place, shape.get("label"), path))
        split = image.get("subset") or (cvat_video.DEFAULT if subsets else None)
        entries.append(ImageEntry([name], where, regions, size, split))
    return Content(entries, _class_names(root, path))


def _class_names(root: ElementTree.Element, path: Path) -> tuple[str, ...] | None:
    labels = [
        label
        for label in root.findall("meta/*/labels/label")
        if label.find("parent") is None and label.findtext("type", "").strip() in _BOX_TYPES
    ]
    names = [label.findtext("name", "").strip() for label in labels]
    return checked_class_names(names, path) if names else None


def _box(shape: ElementTree.Element, path: Path, where: str, found: set[str]) -> Box | None:
    if shape.tag in ("points", "polyline", "skeleton"):
        found.add(NO_BOX)
        return None
    angle = math.radians(_number(shape, "rotation", path, where) if shape.get("rotation") else 0)
    if shape.tag == "box":
        x1, y1, x2, y2 = (_number(shape, n, path, where) for n in ("xtl", "ytl", "xbr", "ybr"))
        if not angle:
            return x1, y1, x2 - x1, y2 - y1
        box = around_rotated((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, angle)
    elif shape.tag == "ellipse":
        sides = (_number(shape, name, path, where) for name in ("cx", "cy", "rx", "ry"))
        box = around_ellipse(*sides, angle)
    elif shape.tag == "mask":
        box = tuple(_number(shape, n, path, where) for n in ("left", "top", "width", "height"))
    else:
        box = around_points(*_points(shape, path, where))
    found.add(OUTLINE)
    return box


def _points(shape: ElementTree.Element, path: Path, where: str) -> tuple[list[float], list[float]]:
    """x and y of 'x,y;x,y;...', or of the corners of a cuboid: xtl1, ytl1, xbl1, ..."""
    if shape.tag == "cuboid":
        names = [f"{corner}{side}" for corner in ("tl", "bl", "tr", "br") for side in (1, 2)]
        xs, ys = ([_number(shape, axis + n, path, where) for n in names] for axis in "xy")
        return xs, ys
    stated = shape.get("points", "")
    pairs = [pair.split(",") for pair in stated.strip().rstrip(";").split(";")]
    numbers = [[fields.finite(v, lenient=True) for v in pair] for pair in pairs]
    if len(pairs) < 3 or any(len(pair) != 2 or None in pair for pair in numbers):
        what = f"points is {fields.short(stated)}"
        raise DataError("points", path, where, what, "write at least three points: x,y;x,y;x,y")
    return [pair[0] for pair in numbers], [pair[1] for pair in numbers]


def _number(shape: ElementTree.Element, name: str, path: Path, where: str) -> float:
    number = fields.finite(shape.get(name), lenient=True)
    if number is None:
        what = f"{name} is {fields.short(shape.get(name))}"
        raise DataError(shape.tag, path, where, what, "write a number, in pixels")
    return number


_FORMAT = SplitFileFormat(
    name="cvat",
    tool="CVAT for images",
    suffixes=(".xml",),
    is_one=_is_cvat,
    parse=_parse,
    box=_box,
    inner_splits=_inner_splits,
)
