"""Resizing, flipping and cropping of examples on the host, in uint8 but for torchvision's resizing.

Pure functions of an example and of numbers drawn beforehand. Boxes are scaled by the true ratio of
the rounded sizes, so that pixels and boxes stay together to the last bit; labels and crowd marks
are carried along.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from retinanet_jax.data.batch import Example, select_boxes

# A box of which a crop shows less than this share of its area is dropped: what is left of the
# object seldom tells what it is (tf_vision and SSD's sampler drop by the centre or by a share).
MIN_VISIBLE_SHARE = 0.25

RESIZINGS = ("opencv", "torchvision", "detectron2", "mmdetection")


class Draws(NamedTuple):
    """The random numbers of one augmentation, each uniform in [0, 1)."""

    flip: float
    scale: float
    top: float
    left: float


def draw(key: tuple[int, ...]) -> Draws:
    """The numbers that belong to a key, e.g. (seed, epoch, index), whatever was drawn before."""
    return Draws(*np.random.default_rng(key).random(4).tolist())


def fitted_size(
    size: tuple[int, int],
    min_side: int,
    max_side: int,
    scale: float = 1.0,
    *,
    floor: bool = False,
) -> tuple[int, int]:
    """(height, width) with the short side at `min_side`, or less where the long one would pass max.

    The rule of Faster R-CNN and of every public RetinaNet. Sides are rounded half up as in
    detectron2 and MMDetection, so that the short side is exactly `min_side`; with `floor` they are
    cut, as torchvision does: it may be one less. `scale` multiplies the result before rounding and
    may take it above `max_side`.
    """
    factor = scale * min(min_side / min(size), max_side / max(size))
    height, width = (max(1, math.floor(side * factor + 0.5 * (not floor))) for side in size)
    return height, width


def resize(example: Example, size: tuple[int, int], how: str = "opencv") -> Example:
    """The example at `size` (height, width); remembers the stored size as `original_size`.

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
    return example._replace(image=image, boxes=boxes, original_size=original_size)


def _interpolate(image: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    height, width = size
    if how == "detectron2":
        picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(picture)
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


def flip(example: Example) -> Example:
    """Mirrors left and right."""
    x1, y1, x2, y2 = example.boxes.T
    width = example.image.shape[1]
    boxes = np.stack([width - x2, y1, width - x1, y2], axis=-1).astype(np.float32)
    return example._replace(image=cv2.flip(example.image, 1), boxes=boxes)


def crop(example: Example, top: int, left: int, size: tuple[int, int]) -> Example:
    """The window of `size` (height, width) from (top, left) on, which lies inside the picture.

    Boxes are clipped to the window; those of which less than MIN_VISIBLE_SHARE is left are dropped.
    """
    height, width = size
    original_size = example.original_size or example.image.shape[:2]
    shifted = example.boxes - np.array([left, top, left, top], np.float32)
    clipped = np.clip(shifted, 0, np.array([width, height, width, height], np.float32))
    kept = _area(clipped) >= np.maximum(MIN_VISIBLE_SHARE * _area(shifted), 1e-6)
    window = example._replace(
        image=example.image[top : top + height, left : left + width],
        boxes=clipped,
        original_size=original_size,
    )
    return select_boxes(window, kept)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def augment(
    example: Example,
    draws: Draws,
    *,
    min_side: int,
    max_side: int,
    bound: tuple[int, int],
    flip_half: bool,
    scale_jitter: tuple[float, float],
) -> Example:
    """Random scale, a random crop to `bound` where the result is larger, and a flip of every other.

    With scale_jitter (1, 1) only the flip is random. As in the scale jitter of Du et al.
    (arXiv 2107.00057, section 3) a picture that became smaller lies in the canvas as it is.

    Args:
      bound: (height, width) in pixels which the result must not pass.
      flip_half: whether to mirror the example when draws.flip is below one half.
      scale_jitter: lowest and highest factor on the size that min_side and max_side give.
    """
    low, high = scale_jitter
    scale = low + (high - low) * draws.scale
    target = fitted_size(example.image.shape[:2], min_side, max_side, scale)
    example = _zoom(example, target, bound, draws)
    return flip(example) if flip_half and draws.flip < 0.5 else example


def _zoom(
    example: Example, target: tuple[int, int], bound: tuple[int, int], draws: Draws
) -> Example:
    """Resizes to `target`, of which a random window of at most `bound` is kept.

    The window is cut before resizing, in whole pixels of the source: several times cheaper at
    large scales.
    """
    size = example.image.shape[:2]
    shown = tuple(min(t, b) for t, b in zip(target, bound, strict=True))
    if shown != target:
        window = [max(1, round(s * o / t)) for s, o, t in zip(size, shown, target, strict=True)]
        top = int(draws.top * (size[0] - window[0] + 1))
        left = int(draws.left * (size[1] - window[1] + 1))
        example = crop(example, top, left, (window[0], window[1]))
    return resize(example, (shown[0], shown[1]))
