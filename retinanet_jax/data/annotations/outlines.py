"""Bounding boxes x, y, width, height of points, ellipses and rotated rectangles."""

import math
from collections.abc import Sequence

ROTATED = "rotated boxes, bounding boxes used"

Box = tuple[float, float, float, float]


def around_points(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """Returns the box around at least one point."""
    x, y = min(xs), min(ys)
    return x, y, max(xs) - x, max(ys) - y


def around_ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Box:
    """Returns the box around an ellipse with center (x, y), rotated by `angle` in radians."""
    w = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    h = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return x - w, y - h, 2 * w, 2 * h


def around_rotated(x: float, y: float, width: float, height: float, angle: float) -> Box:
    """Returns the box around a rectangle rotated about its center (x, y), in radians."""
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    w, h = width * cos + height * sin, width * sin + height * cos
    return x - w / 2, y - h / 2, w, h


def around_turned(box: Box, degrees: float) -> Box:
    """Returns the box around a box that is rotated about its center, as CVAT states it.

    A box without area stays as it is, for the check that reports it.
    """
    x, y, width, height = box
    if min(width, height) <= 0:
        return box
    return around_rotated(x + width / 2, y + height / 2, width, height, math.radians(degrees))
