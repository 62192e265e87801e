"""Mosaic: four images around a point of one canvas (YOLOv4, arXiv 2004.10934, section 3.3)."""

import itertools
from collections.abc import Sequence

import numpy as np

from retinanet_jax.data.pipeline.batch import OBJECT_FIELDS, Example

# No quadrant is narrower than this share of the canvas, as in darknet, the code of YOLOv4.
MARGIN = 0.2
# Grey of what no image covers, as in YOLOv5 and MMDetection: about the mean of ImageNet.
FILL = 114


def center_at(canvas: tuple[int, int], down: float, right: float) -> tuple[int, int]:
    """Returns (row, column) where the images meet, from two numbers in [0, 1)."""
    row, column = (
        min(max(1, round(side * (MARGIN + (1 - 2 * MARGIN) * number))), side - 1)
        for side, number in zip(canvas, (down, right), strict=True)
    )
    return row, column


def quadrants(canvas: tuple[int, int], center: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns (height, width) of the upper left, upper right, lower left and lower right part."""
    heights, widths = ((at, side - at) for side, at in zip(canvas, center, strict=True))
    return list(itertools.product(heights, widths))


def join(parts: Sequence[Example], canvas: tuple[int, int], center: tuple[int, int]) -> Example:
    """Returns one image of four whose corners meet; each is at most as large as its quadrant.

    Image id and original size are those of the first.
    """
    image = np.full((*canvas, 3), FILL, np.uint8)
    placed = []
    for part, (lower, right) in zip(parts, itertools.product((False, True), repeat=2), strict=True):
        height, width = part.image.shape[:2]
        top = center[0] - (0 if lower else height)
        left = center[1] - (0 if right else width)
        image[top : top + height, left : left + width] = part.image
        placed.append(part._replace(boxes=part.boxes + np.array([left, top] * 2, np.float32)))
    objects = {
        field: np.concatenate([getattr(part, field) for part in placed]) for field in OBJECT_FIELDS
    }
    return parts[0]._replace(image=image, **objects)
