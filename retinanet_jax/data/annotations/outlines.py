"""Bounding boxes of shapes: points, ellipses, rotated rectangles. All are x, y, width, height."""

import math
from collections.abc import Sequence

ROTATED = "rotated boxes, bounding boxes used"

Box = tuple[float, float, float, float]


def around_points(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """The box around points, of which there is at least one."""
    x, y = min(xs), min(ys)
    return x, y, max(xs) - x, max(ys) - y


def around_ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Box:
    """The box around an ellipse with center (x, y) and radii, rotated by `angle` in radians."""
    w = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    h = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return x - w, y - h, 2 * w, 2 * h


def around_rotated(x: float, y: float, width: float, height: float, angle: float) -> Box:
    """The box around a rectangle with center (x, y) that is rotated about it, in radians."""
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    w, h = width * cos + height * sin, width * sin + height * cos
    return x - w / 2, y - h / 2, w, h
