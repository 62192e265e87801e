"""Checks of boxes [x, y, width, height]: one by one, and all boxes of a split together."""

import math
from collections.abc import Sequence

from retinanet_jax.data.annotations.raw import RawImage, RawObject, RawSplit
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError

Box = tuple[float, float, float, float]

# A side below this many pixels would vanish in float32 coordinates divided by the image's size.
MIN_SIDE = 1e-3
# Rounding by annotation tools: a box that leaves its image by less is clipped but not counted.
OUTSIDE_TOLERANCE = 0.5
# Pixels by which a box may leave the image that it fits, when EXIF orientations are compared.
_FIT_TOLERANCE = 2.0
LIKE_CORNERS = (
    "more than half of the boxes extend beyond their image; they look like x1, y1, x2, y2, "
    "where x, y, width, height are read"
)
# The four numbers of a box as files write them, by RawSplit.box_form.
_NAMES = {
    "size": "[x, y, width, height]",
    "corners": "[xmin, ymin, xmax, ymax]",
    "center": "[x and y of the centre, width, height]",
}


def check_box(
    box: Box,
    size: tuple[int, int],
    path: AnyPath,
    where: str,
    form: str = "size",
    normalized: bool = False,
) -> bool:
    """Returns whether a box in pixels lies partly outside its image of `size` (height, width).

    Messages show the box as its file has it: in `form`, see RawSplit, and in fractions of the image
    if `normalized`.

    Raises:
      DataError: the box is not finite, has no area, or lies outside the image.
    """
    x, y, width, height = box
    if not all(map(math.isfinite, box)):
        what = f"box is {list(box)}"
        raise DataError("bbox", path, where, what, f"write {_NAMES[form]}, finite numbers")
    inside = min(x + width, size[1]) - max(x, 0), min(y + height, size[0]) - max(y, 0)
    if width < MIN_SIDE or height < MIN_SIDE:
        reason, (what, fix) = "box without area", _without_area(box, size, form)
    elif min(inside) < MIN_SIDE:
        reason, what = "box outside its image", f"lies outside its image of {size[1]} x {size[0]}"
        unit = "fractions of the image, 0 to 1" if normalized else "pixels of the image"
        fix = f"write {_NAMES[form]} in {unit}"
    else:
        return max(width - inside[0], height - inside[1]) > OUTSIDE_TOLERANCE
    written = listed(as_written(_divided(box, size) if normalized else box, form))
    raise DataError(reason, path, where, f"box {written} {what}", fix)


def _without_area(box: Box, size: tuple[int, int], form: str) -> tuple[str, str]:
    """What is wrong with a box without area, and how to fix it."""
    what = f"has width {box[2]:g} and height {box[3]:g}"
    if form != "corners":
        return what, f"write sides of at least {MIN_SIDE:g} pixels, in the order {_NAMES[form]}"
    fix = "write xmin, ymin, xmax, ymax with xmin below xmax and ymin below ymax"
    x, y, width, height = as_written(box, form)
    if min(x, y) >= 0 < min(width, height) and x + width <= size[1] and y + height <= size[0]:
        fix += "; or, if these are x, y, width, height, add x to the width and y to the height"
    return what, fix


def as_written(box: Box, form: str) -> Box:
    """Returns the numbers of a box x, y, width, height in the form that its file uses."""
    x, y, width, height = box
    if form == "corners":
        return x, y, x + width, y + height
    return (x + width / 2, y + height / 2, width, height) if form == "center" else box


def listed(numbers: Sequence[float]) -> str:
    """Returns numbers as text for a message, with six digits."""
    return f"[{', '.join(f'{v:.6g}' for v in numbers)}]"


def share_error(box: Box, form: str, path: AnyPath, where: str) -> DataError:
    """Returns the error for a box in fractions of the image where pixels are expected."""
    what = f"box {listed(as_written(box, form))} is in fractions of the image, not in pixels"
    across, down = "xmin and xmax", "ymin and ymax"
    if form != "corners":
        across, down = "x and width", "y and height"
    fix = f"multiply {across} by the image's width, {down} by its height"
    return DataError("box in fractions of the image", path, where, what, fix)


def has_size_of_image(box: Box, size: tuple[int, int]) -> bool:
    """Returns whether a box has the sides of its image (height, width), but begins inside it."""
    x, y, *sides = box
    differences = (abs(a - b) for a, b in zip(sorted(sides), sorted(size), strict=True))
    return max(differences) <= OUTSIDE_TOLERANCE and max(abs(x), abs(y)) > _FIT_TOLERANCE


def size_error(count: int, boxes: int, path: AnyPath) -> DataError:
    """Returns the error for a split in which the image's size stands in place of the box's."""
    what = f"{count} of {boxes} boxes have the width and height of their image, but begin inside it"
    fix = (
        "write the width and height of each box; in a table, name its columns bbox_width and "
        "bbox_height"
    )
    return DataError("boxes of the image's size", path, "", what, fix)


def _divided(box: Box, size: tuple[int, int]) -> Box:
    """The inverse of `pixel_box`."""
    (x, y, width, height), (rows, columns) = box, size
    return x / columns, y / rows, width / columns, height / rows


def pixel_box(box: Box, size: tuple[int, int]) -> Box:
    """Returns a box in pixels, given in fractions of an image of `size` (height, width)."""
    (x, y, width, height), (rows, columns) = box, size
    return x * columns, y * rows, width * columns, height * rows


def fits(image: RawImage, size: tuple[int, int]) -> bool:
    """Returns whether all boxes lie inside a size (height, width), up to rounding."""
    if image.normalized:
        return True
    height, width = size[0] + _FIT_TOLERANCE, size[1] + _FIT_TOLERANCE
    return all(x + w <= width and y + h <= height for x, y, w, h in (o.box for o in image.objects))


def in_shares(raw: RawSplit) -> bool:
    """Returns whether most boxes of a split are in [0, 1] where pixels are expected.

    A single such box may be tiny; if most boxes of a split are like this, their unit is another
    one.
    """
    pixels = [(im, o) for im in raw.images if not im.normalized for o in im.objects]
    return 2 * sum(is_share(image, entry) for image, entry in pixels) > len(pixels)


def is_share(image: RawImage, entry: RawObject) -> bool:
    """Returns whether a box is in [0, 1] on a larger image."""
    x, y, width, height = entry.box
    inside = min(entry.box) >= 0 and x + width <= 1.001 and y + height <= 1.001
    # An image of a few pixels has boxes as small as these.
    return inside and (image.size is None or min(image.size) > 4)


def looks_like_corners(box: Box, size: tuple[int, int]) -> bool:
    """Returns whether four numbers are x1, y1, x2, y2 of a box inside an image (height, width)."""
    x1, y1, x2, y2 = box
    return x1 < x2 <= size[1] + OUTSIDE_TOLERANCE and y1 < y2 <= size[0] + OUTSIDE_TOLERANCE
