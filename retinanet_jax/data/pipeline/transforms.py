"""Resizing, mirroring and cropping of examples on the host.

Pure functions, in uint8 except for torchvision's resizing. Boxes and areas are scaled by the true
ratio of the rounded sizes, so that pixels and boxes stay together to the last bit; labels and crowd
flags are kept.
"""

import math

import cv2
import numpy as np
from PIL import Image

from retinanet_jax.data.pipeline.batch import Example, box_areas, select_boxes

RESIZINGS = ("opencv", "torchvision", "detectron2", "mmdetection")


def fitted_size(
    size: tuple[int, int],
    min_side: int,
    max_side: int,
    scale: float = 1.0,
    *,
    floor: bool = False,
) -> tuple[int, int]:
    """Returns (height, width) with the short side at `min_side`, or less to stay within `max_side`.

    The rule of Faster R-CNN and of every public RetinaNet. Sides are rounded half up as in
    detectron2 and MMDetection, so that the short side is exactly `min_side`; with `floor` they are
    cut, as torchvision does: it may be one less. `scale` multiplies the result before rounding and
    may take it above `max_side`.
    """
    factor = scale * min(min_side / min(size), max_side / max(size))
    height, width = (max(1, math.floor(side * factor + 0.5 * (not floor))) for side in size)
    return height, width


def resize(example: Example, size: tuple[int, int], how: str = "opencv") -> Example:
    """Returns the example at `size` (height, width); remembers the stored size as `original_size`.

    Args:
      how: opencv: bilinear without antialiasing down to half the size; below, area averages: there
        bilinear sampling skips pixels and small objects flicker. Averaging at every shrinkage would
        cost more than the JPEG's decoding (4 ms for 640 x 480). mmdetection: bilinear without
        antialiasing at every size. detectron2: PIL's bilinear, which antialiases. torchvision:
        bilinear without antialiasing, with torch's rounding of coordinates; the values stay
        unrounded, float32 up to 255. (torchvision resizes after it normalised; both are linear, so
        that the order makes no difference.)
    """
    height, width = example.image.shape[:2]
    original_size = example.original_size or (height, width)
    image = example.image.astype(np.float32) if how == "torchvision" else example.image
    if (height, width) == tuple(size):
        return example._replace(image=image, original_size=original_size)
    image = _interpolate(image, size, how)
    # In float64: a box that ends at the border must end there afterwards too.
    factors = np.array([size[1] / width, size[0] / height] * 2)
    boxes = (example.boxes * factors).astype(np.float32)
    areas = example.areas * (factors[0] * factors[1])
    return example._replace(image=image, boxes=boxes, areas=areas, original_size=original_size)


def _interpolate(image: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    height, width = size
    if how == "detectron2":
        resized = Image.fromarray(image)
        # Columns first, as Pillow has them; of tall images, version 13 has the rows first.
        for step in ((width, resized.height), (width, height)):
            resized = resized.resize(step, Image.Resampling.BILINEAR)
        return np.asarray(resized)
    if how == "torchvision":
        rows, columns = (_torch_taps(*pair) for pair in zip(image.shape[:2], size, strict=True))
        wide = _blend(image, *columns, axis=1)
        return _blend(wide, *rows, axis=0)
    skips = 2 * height < image.shape[0] and 2 * width < image.shape[1]
    averages = how == "opencv" and skips
    interpolation = cv2.INTER_AREA if averages else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=interpolation)


def _torch_taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `new` pixels of a line: its two neighbours among `old`, and the second's share.

    torch's `interpolate` computes where a pixel comes from in float32, by a fused multiply-add, and
    misplaces it by up to 5e-5 of a pixel. In C3 that is four times the error of all the rounding on
    the way there: with exact coordinates, boxes would lie over 1e-3 pixels from torchvision's.
    """
    scale = np.float64(np.float32(old) / np.float32(new))
    source = np.maximum((scale * (np.arange(new) + 0.5) - 0.5).astype(np.float32), 0)
    first = np.minimum(source.astype(int), old - 1)
    return first, np.minimum(first + 1, old - 1), source - first.astype(np.float32)


def _blend(image: np.ndarray, first: np.ndarray, second: np.ndarray, share: np.ndarray, axis: int):
    """The lines `first` and `second` of an axis, mixed by the share of the second."""
    share = np.expand_dims(share, (1, 2) if axis == 0 else (0, 2))
    return image.take(first, axis) * (1 - share) + image.take(second, axis) * share


def mirror(example: Example) -> Example:
    """Returns the example mirrored left to right."""
    x1, y1, x2, y2 = np.moveaxis(example.boxes, -1, 0)
    width = np.float32(example.image.shape[1])
    boxes = np.stack([width - x2, y1, width - x1, y2], axis=-1)
    return example._replace(image=example.image[:, ::-1], boxes=boxes)


def crop(
    example: Example, top: int, left: int, size: tuple[int, int], min_visible_share: float
) -> Example:
    """Returns the window of `size` (height, width) from (top, left), which lies inside the image.

    Boxes are clipped to the window, areas shrink by the share of the box that it shows. A box is
    kept if that share is at least `min_visible_share`; a crowd if any of it is in sight.
    """
    height, width = size
    original_size = example.original_size or example.image.shape[:2]
    shifted = example.boxes - np.array([left, top, left, top], np.float32)
    clipped = np.clip(shifted, 0, np.array([width, height, width, height], np.float32))
    visible = box_areas(clipped)
    shares = visible / np.maximum(box_areas(shifted), np.finfo(np.float32).tiny)
    window = example._replace(
        image=example.image[top : top + height, left : left + width],
        boxes=clipped,
        areas=example.areas * shares,
        original_size=original_size,
    )
    kept = (visible > 0) & (example.crowd | (shares >= min_visible_share))
    return select_boxes(window, kept)
