"""The boxes of Datumaro's annotations, by their type; see datumaro.py."""

import math
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.outlines import (
    Box,
    around_ellipse,
    around_points,
    around_rotated,
)
from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats.rle_masks import box_of_rle

GROUPED = "annotations in a group, read as parts of one object"
WHOLE_IMAGE = "image labels, captions and 3D boxes, left out"
EXPORT = "export the annotations again as Datumaro"
BOXES = ("bbox", "rotated_bbox")
SHAPES = (*BOXES, "polygon", "mask", "ellipse", "cuboid_2d")
_WITHOUT_BOX = ("points", "polyline", "skeleton")
_OF_IMAGE = ("label", "caption", "cuboid_3d", "hash_key", "feature_vector", "tabular")
TYPES = (*SHAPES, *_WITHOUT_BOX, *_OF_IMAGE)


def box_around(shapes: list[dict], path: Path, where: str, found: set[str]) -> Box | None:
    """Returns the box around the parts of an object, or its own box if it has one."""
    kind = shapes[0]["type"]
    if kind not in SHAPES:
        found.add(NO_BOX if kind in _WITHOUT_BOX else WHOLE_IMAGE)
        return None
    if len(shapes) > 1:
        found.add(GROUPED)
    own = [shape for shape in shapes if shape["type"] in BOXES]
    boxes = [_box_of(shape, path, where, found) for shape in own or shapes]
    if len(boxes) == 1:
        return boxes[0]
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    x1, y1, x2, y2 = zip(*corners, strict=True)
    return around_points(x1 + x2, y1 + y2)


def _box_of(shape: dict, path: Path, where: str, found: set[str]) -> Box:
    kind, angle = shape["type"], _rotation(shape)
    if kind == "bbox":
        x, y, width, height = fields.box(shape, path, where)
        if not angle:
            return x, y, width, height
        box = around_rotated(x + width / 2, y + height / 2, width, height, angle)
    elif kind == "mask":
        box = _box_of_mask(shape, path, where)
    elif kind == "ellipse":
        x1, y1, x2, y2 = _numbers(shape, path, where, 4)
        box = around_ellipse((x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2, angle)
    elif kind == "rotated_bbox":
        x, y, width, height, degrees = _numbers(shape, path, where, 5)
        box = around_rotated(x, y, width, height, math.radians(degrees))
    elif kind == "cuboid_2d":
        corners = fields.points(shape.get("points"), path, where, least=8)
        box = around_points(*zip(*corners, strict=True))
    else:
        numbers = _numbers(shape, path, where)
        box = around_points(numbers[::2], numbers[1::2])
    found.add(OUTLINE)
    return box


def _rotation(shape: dict) -> float:
    """About the center, in radians: CVAT's rectangles and ellipses have it as an attribute."""
    attributes = shape.get("attributes")
    stated = attributes.get("rotation") if isinstance(attributes, dict) else None
    return math.radians(fields.finite(stated, lenient=True) or 0.0)


def _box_of_mask(shape: dict, path: Path, where: str) -> Box:
    try:
        box = box_of_rle(shape.get("rle"))
    except ValueError as error:
        raise DataError("rle", path, where, str(error), EXPORT) from error
    if box is None:
        raise DataError("rle", path, where, "the mask has no pixels", "delete it")
    return box


def _numbers(shape: dict, path: Path, where: str, count: int = 0) -> list[float]:
    """`points`: so many numbers; 0 stands for the x and y of at least three points."""
    stated = shape.get("points")
    numbers = [fields.finite(v) for v in stated] if isinstance(stated, list) else []
    fits = len(numbers) == count if count else len(numbers) >= 6 and len(numbers) % 2 == 0
    if not fits or None in numbers:
        what = f"points is {fields.short(stated)}"
        wanted = f"{count} numbers" if count else "x and y of at least three points"
        raise DataError("points", path, where, what, f"write {wanted}, in pixels")
    return numbers
