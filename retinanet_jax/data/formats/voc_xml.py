"""The XML of Pascal VOC: one file for each image, an <object> for each box.

Corners are used as they are, without a shift: labelImg, CVAT and Roboflow count pixels from 0,
unlike the official releases. Objects with a mark such as `difficult` are crowds, as in VOC's own
datasets.
"""

import math
import re
from xml.etree import ElementTree

from retinanet_jax.data.annotations.annotation_fields import class_name, finite, short
from retinanet_jax.data.annotations.ignore_marks import is_ignored
from retinanet_jax.data.annotations.outlines import (
    ROTATED,
    Box,
    around_points,
    around_rotated,
    around_turned,
)
from retinanet_jax.data.annotations.raw import RawObject
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Guard

POLYGON = "polygons without bndbox, bounding boxes used"
DELETED = "object marked as deleted, left out"
_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no", "unspecified")


def parse_xml(data: bytes, path: AnyPath | str) -> ElementTree.Element:
    """Returns the root element.

    Raises:
      DataError: the text is not XML, or has a document type; `path` names the file.
    """
    try:
        return ElementTree.fromstring(data, ElementTree.XMLParser(target=_Tree()))
    except (ValueError, LookupError, ElementTree.ParseError) as error:
        what = f"cannot be read as XML ({error})"
        raise DataError(
            "annotation file", path, "", what, "export the annotations again"
        ) from error


class _Tree(ElementTree.TreeBuilder):
    """Refuses a document type before any of its entities is expanded."""

    def doctype(self, name: str, public_id: str | None, system: str | None) -> None:
        raise ValueError("a DOCTYPE is not allowed")


def stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Returns (height, width) as stated; None if it is missing, 0 or not a number."""
    sides = [root.findtext(f"size/{side}", "").strip() for side in ("height", "width")]
    whole = all(re.fullmatch(r"\d{1,6}(\.0*)?", side) for side in sides)
    height, width = (int(float(side)) for side in sides) if whole else (0, 0)
    return (height, width) if height and width else None


def read_objects(
    root: ElementTree.Element,
    path: str,
    class_names: tuple[str, ...] | None,
    guard: Guard,
    notes: list[tuple[str, str]],
) -> tuple[RawObject, ...]:
    """Returns the objects of an image.

    The guard collects errors of single objects, and `notes` counts changed ones.

    `class_names` are the names that may occur; None allows all.
    """
    objects, found = [], set()
    for number, element in enumerate(root.findall("object"), 1):
        with guard:
            where = f"object {number}"
            if _flag(element, "deleted", path, where):  # LabelMe's
                found.add(DELETED)
                continue
            name = class_name(element.findtext("name", ""), class_names, path, where)
            crowd = any([is_ignored(marks, path, where) for marks in _marks(element)])
            box = _box(element, path, where, found)
            objects.append(RawObject(name, box, where, crowd=crowd))
    notes.extend((reason, path) for reason in sorted(found))
    return tuple(objects)


def _marks(element: ElementTree.Element) -> tuple[dict[str, str | None], dict[str, str]]:
    """The fields of an object, and its attributes, as CVAT and Datumaro write them."""
    attributes = element.findall("attributes/attribute")
    named = {a.findtext("name", "").strip(): a.findtext("value", "") for a in attributes}
    return {child.tag: child.text for child in element}, named


def _flag(element: ElementTree.Element, name: str, path: str, where: str) -> bool:
    text = element.findtext(name, "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise DataError(name, path, where, f"{name} is {short(text)}", "write 0 or 1")
    return text in _TRUE


def _box(element: ElementTree.Element, path: str, where: str, found: set[str]) -> Box:
    """x, y, width, height of `bndbox`, or around what stands in its place."""
    bndbox = element.find("bndbox")
    if bndbox is not None:
        sides = "xmin", "ymin", "xmax", "ymax"
        x1, y1, x2, y2 = (_number(bndbox, side, path, where) for side in sides)
        box = x1, y1, x2 - x1, y2 - y1
        return _turned(box, _rotation(element, path, where), found)
    rotated = element.find("robndbox")  # roLabelImg's; the angle in radians
    if rotated is not None:
        found.add(ROTATED)
        sides = "cx", "cy", "w", "h", "angle"
        return around_rotated(*(_number(rotated, side, path, where) for side in sides))
    polygon = element.find("polygon")
    if polygon is None:
        raise DataError("bndbox", path, where, "has no bndbox", "add xmin, ymin, xmax, ymax")
    found.add(POLYGON)
    box = _around_polygon(polygon, path, where)
    if element.findtext("type", "").strip() != "bounding_box":
        return box
    return _turned(box, _rotation_in_text(element), found)


def _turned(box: Box, degrees: float, found: set[str]) -> Box:
    if not degrees:
        return box
    found.add(ROTATED)
    return around_turned(box, degrees)


def _around_polygon(polygon: ElementTree.Element, path: str, where: str) -> Box:
    """Around <x1> <y1> <x2> ... (Roboflow's) or <pt><x> <y></pt> ... (LabelMe's)."""
    numbers: dict[str, list[float]] = {"x": [], "y": []}
    for parent in (polygon, *polygon.findall("pt")):
        for child in parent:
            if re.fullmatch(r"[xy]\d*", child.tag):
                numbers[child.tag[0]].append(_number(parent, child.tag, path, where))
    xs, ys = numbers["x"], numbers["y"]
    if len(xs) < 3 or len(xs) != len(ys):
        what = f"polygon has {len(xs)} x and {len(ys)} y values"
        raise DataError("polygon", path, where, what, "write at least three points")
    return around_points(xs, ys)


def _rotation(element: ElementTree.Element, path: str, where: str) -> float:
    """CVAT's attribute `rotation` in degrees; 0 where there is none."""
    for attribute in element.findall("attributes/attribute"):
        if attribute.findtext("name", "").strip() == "rotation":
            return _number(attribute, "value", path, where) % 360
    return 0.0


def _rotation_in_text(element: ElementTree.Element) -> float:
    """The same attribute of a rectangle in Datumaro's LabelMe: 'occluded=no, rotation=90.0'."""
    match = re.search(r"(?:^|,)\s*rotation=([^,]*)", element.findtext("attributes", ""))
    return (finite(match[1], lenient=True) or 0.0) % 360 if match else 0.0


def _number(parent: ElementTree.Element, name: str, path: str, where: str) -> float:
    text = parent.findtext(name)
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        what = f"{parent.tag} has {name} {short(text)}"
        raise DataError(str(parent.tag), path, where, what, "write a number, in pixels")
    return number
