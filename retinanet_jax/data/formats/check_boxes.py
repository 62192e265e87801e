"""Checks of boxes [x, y, width, height]: one by one, and all boxes of a split together."""

import math

from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats.raw import RawImage, RawObject, RawSplit

Box = tuple[float, float, float, float]

# A side below this many pixels would vanish in float32 coordinates divided by the image's size.
MIN_SIDE = 1e-3
# Rounding by annotation tools: a box that leaves its image by less is clipped but not counted.
OUTSIDE_TOLERANCE = 0.5
# Pixels by which a box may leave the image that it fits, when EXIF orientations are compared.
_FIT_TOLERANCE = 2.0
LIKE_CORNERS = (
    "more than half of the boxes leave their image; they look like x1, y1, x2, y2, "
    "where x, y, width, height are read"
)


def check_box(box: Box, size: tuple[int, int], path: AnyPath, where: str) -> bool:
    """Whether a box in pixels lies partly outside its image of `size` (height, width).

    Raises:
      DataError: it is not finite, or has no area, or none inside the image.
    """
    x, y, width, height = box
    if not all(map(math.isfinite, box)):
        what = f"box is {list(box)}"
        raise DataError("bbox", path, where, what, "write [x, y, width, height], finite numbers")
    if width < MIN_SIDE or height < MIN_SIDE:
        what = f"box {_listed(box)} has width {width:g} and height {height:g}"
        fix = f"sides are at least {MIN_SIDE:g} pixels, in the order [x, y, width, height]"
        raise DataError("box without area", path, where, what, fix)
    inside = min(x + width, size[1]) - max(x, 0), min(y + height, size[0]) - max(y, 0)
    if min(inside) < MIN_SIDE:
        what = f"box {_listed(box)} lies outside its image of {size[1]} x {size[0]}"
        fix = "write [x, y, width, height] in pixels of the image"
        raise DataError("box outside its image", path, where, what, fix)
    return max(width - inside[0], height - inside[1]) > OUTSIDE_TOLERANCE


def _listed(box: Box) -> str:
    return f"[{', '.join(f'{v:.6g}' for v in box)}]"


def pixel_box(box: Box, size: tuple[int, int]) -> Box:
    """A box in shares of an image of `size` (height, width), in pixels."""
    (x, y, width, height), (rows, columns) = box, size
    return x * columns, y * rows, width * columns, height * rows


def fits(image: RawImage, size: tuple[int, int]) -> bool:
    """Whether all boxes of an image lie inside a size (height, width), but for rounding."""
    if image.normalized:
        return True
    height, width = size[0] + _FIT_TOLERANCE, size[1] + _FIT_TOLERANCE
    return all(x + w <= width and y + h <= height for x, y, w, h in (o.box for o in image.objects))


def in_shares(raw: RawSplit) -> bool:
    """Whether most boxes of a split are in 0 .. 1 where pixels are expected.

    A single such box may be a tiny one; in most boxes of a split it is another unit.
    """
    pixels = [(im, o) for im in raw.images if not im.normalized for o in im.objects]
    return 2 * sum(is_share(image, entry) for image, entry in pixels) > len(pixels)


def is_share(image: RawImage, entry: RawObject) -> bool:
    """Whether a box is in 0 .. 1, on an image that is larger."""
    x, y, width, height = entry.box
    inside = min(entry.box) >= 0 and x + width <= 1.001 and y + height <= 1.001
    # An image of a few pixels has boxes as small as these.
    return inside and (image.size is None or min(image.size) > 4)


def looks_like_corners(box: Box, size: tuple[int, int]) -> bool:
    """Whether the four numbers are x1, y1, x2, y2 of a box inside an image (height, width)."""
    x1, y1, x2, y2 = box
    return x1 < x2 <= size[1] + OUTSIDE_TOLERANCE and y1 < y2 <= size[0] + OUTSIDE_TOLERANCE
