"""Axis-aligned boxes: areas, overlaps, clipping and scaling.

A box is (x1, y1, x2, y2) in absolute pixels of the array it belongs to. Sides are x2 - x1 and y2 -
y1, without the "+1" of Detectron 1. Every function is pure, differentiable, and takes numpy or JAX
arrays. Boxes without area (padding is all zeros) give finite values and finite gradients.

Overlaps are computed coordinate by coordinate: arrays with a last axis of 2 (low and high corners)
would fill only a 64th of a TPU's tiles of 8 x 128 numbers.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from retinanet_jax.core.arrays import ArrayLike

Number = float | int | np.number | Num[ArrayLike, ""]
Pair = Num[ArrayLike, "... 2"] | Sequence[Number]

_MIN_AREA = 1e-12
"""Minimum area in square pixels. A ratio with a smaller denominator is 0; 1 / _MIN_AREA**2, which
occurs in gradients, is still a finite float32."""

Coordinates = tuple[Array, Array, Array, Array]  # x1, y1, x2, y2


def area(boxes: Float[ArrayLike, "*b 4"]) -> Float[Array, "*b"]:
    """Returns areas in square pixels; a box with swapped corners has area 0."""
    return _area(_coordinates(boxes))


def pairwise_iou(
    boxes1: Float[ArrayLike, "n 4"], boxes2: Float[ArrayLike, "m 4"]
) -> Float[Array, "n m"]:
    """Intersection over union of every box of the first set with every box of the second.

    Args:
      boxes1: n boxes, xyxy pixels.
      boxes2: m boxes of the same image, xyxy pixels.

    Returns:
      Values in [0, 1]; 0 where neither box has an area (torchvision's `box_iou` gives NaN there).
    """
    return _ratio(*_intersection_and_union(_rows(boxes1), _columns(boxes2)))


def pairwise_ioa(
    boxes: Float[ArrayLike, "n 4"], regions: Float[ArrayLike, "m 4"]
) -> Float[Array, "n m"]:
    """Returns the fraction of each box inside each region: intersection over the area of the box.

    COCO's evaluation measures the overlap with crowd regions in this way.

    Args:
      boxes: n boxes, xyxy pixels.
      regions: m regions of the same image, xyxy pixels.

    Returns:
      Values in [0, 1]; 0 for a box without area.
    """
    rows = _rows(boxes)
    return _ratio(_intersection(rows, _columns(regions)), _area(rows))


def iou(boxes1: Float[ArrayLike, "*b 4"], boxes2: Float[ArrayLike, "*b 4"]) -> Float[Array, "*b"]:
    """Intersection over union of corresponding boxes.

    Args:
      boxes1: boxes, xyxy pixels.
      boxes2: as many boxes, xyxy pixels.

    Returns:
      Values in [0, 1]; 0 where neither box has an area.
    """
    return _ratio(*_intersection_and_union(_coordinates(boxes1), _coordinates(boxes2)))


def generalized_iou(
    boxes1: Float[ArrayLike, "*b 4"], boxes2: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """Generalized IoU of corresponding boxes: IoU - (hull - union) / hull.

    Rezatofighi et al., "Generalized Intersection over Union" (arXiv 1902.09630), algorithm 1. The
    hull is the smallest box that contains both. Equals 1 - torchvision's
    `generalized_box_iou_loss`.

    Args:
      boxes1: boxes, xyxy pixels.
      boxes2: as many boxes, xyxy pixels.

    Returns:
      Values in [-1, 1]: 1 for equal boxes, towards -1 for distant ones.
    """
    first, second = _coordinates(boxes1), _coordinates(boxes2)
    intersection, union = _intersection_and_union(first, second)
    around = _area(_hull(first, second))
    return _ratio(intersection, union) - _ratio(around - union, around)


def distance_iou(
    boxes1: Float[ArrayLike, "*b 4"], boxes2: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """Distance IoU of corresponding boxes: IoU - (distance of centres / diagonal of hull)^2.

    Zheng et al., "Distance-IoU Loss" (arXiv 1911.08287), equation 7. Equals 1 -
    torchvision's `distance_box_iou_loss`.

    Args:
      boxes1: boxes, xyxy pixels.
      boxes2: as many boxes, xyxy pixels.

    Returns:
      Values in [-1, 1]: 1 for equal boxes, the IoU for boxes around one centre.
    """
    first, second = _coordinates(boxes1), _coordinates(boxes2)
    apart_x = 0.5 * (first[0] + first[2] - second[0] - second[2])
    apart_y = 0.5 * (first[1] + first[3] - second[1] - second[3])
    width, height = _sides(_hull(first, second))
    penalty = _ratio(apart_x**2 + apart_y**2, width**2 + height**2)
    return iou(boxes1, boxes2) - penalty


def complete_iou(
    boxes1: Float[ArrayLike, "*b 4"], boxes2: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """Complete IoU of corresponding boxes: distance IoU - weight * v, v from the aspect ratios.

    Zheng et al. (arXiv 1911.08287), equations 8 to 11: v = (2 / pi)^2 (difference of the angles
    atan(width / height))^2, weight = v / (1 - IoU + v), through which no gradient flows. Equals 1 -
    torchvision's `complete_box_iou_loss`.

    Args:
      boxes1: boxes, xyxy pixels.
      boxes2: as many boxes, xyxy pixels.

    Returns:
      Values in [-2, 1]: 1 for equal boxes, the distance IoU for boxes of one aspect ratio.
    """
    v = (2 / math.pi * (_aspect_angle(boxes1) - _aspect_angle(boxes2))) ** 2
    weight = jax.lax.stop_gradient(_ratio(v, 1 - iou(boxes1, boxes2) + v))
    return distance_iou(boxes1, boxes2) - weight * v


def clip(boxes: Float[ArrayLike, "*b 4"], image_size: Pair) -> Float[Array, "*b 4"]:
    """Clips boxes to the image.

    Args:
      boxes: boxes, xyxy pixels.
      image_size: (height, width) in pixels: two scalars, or an array whose last axis has length 2
        and whose other axes broadcast against those of the boxes ([b 1 2] for boxes [b n 4]).

    Returns:
      Boxes with x in [0, width] and y in [0, height]. A box outside the image then has no area.
    """
    height, width = _pair(image_size)
    return jnp.clip(boxes, 0, jnp.stack([width, height, width, height], axis=-1))


def scale(boxes: Float[ArrayLike, "*b 4"], factors: Pair) -> Float[Array, "*b 4"]:
    """Scales boxes to a resized image.

    Args:
      boxes: boxes, xyxy pixels of the original image.
      factors: (y, x): new height / old height, new width / old width; scalars or an array as in
        `clip`.

    Returns:
      Boxes, xyxy pixels of the resized image.
    """
    y, x = _pair(factors)
    return jnp.asarray(boxes) * jnp.stack([x, y, x, y], axis=-1)


def centres(boxes: Float[ArrayLike, "*b 4"]) -> Float[Array, "*b 2"]:
    """Returns the centres (x, y) of boxes."""
    boxes = jnp.asarray(boxes)
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def side_distances(
    anchors: Float[ArrayLike, "*#b 4"], boxes: Float[ArrayLike, "*#b 4"]
) -> Float[Array, "*b 4"]:
    """Returns the distances of the left, upper, right and lower sides of boxes from anchor centres.

    A distance is positive if the centre is on the inner side.
    """
    middle, boxes = centres(anchors), jnp.asarray(boxes)
    return jnp.concatenate([middle - boxes[..., :2], boxes[..., 2:] - middle], axis=-1)


def _coordinates(boxes: ArrayLike) -> Coordinates:
    boxes = jnp.asarray(boxes)
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def _rows(boxes: ArrayLike) -> Coordinates:
    """Coordinates [n 1], to compare n boxes with `_columns` of m."""
    return tuple(x[:, None] for x in _coordinates(boxes))


def _columns(boxes: ArrayLike) -> Coordinates:
    return tuple(x[None] for x in _coordinates(boxes))


def _sides(box: Coordinates) -> tuple[Array, Array]:
    x1, y1, x2, y2 = box
    return x2 - x1, y2 - y1


def _area(box: Coordinates) -> Array:
    width, height = _sides(box)
    # Not jnp.maximum: its gradient at 0 is one half, and a box without area must be able to grow.
    return jnp.where(width >= 0, width, 0) * jnp.where(height >= 0, height, 0)


def _hull(first: Coordinates, second: Coordinates) -> Coordinates:
    """The smallest box that contains both."""
    low = (jnp.minimum(a, b) for a, b in zip(first[:2], second[:2], strict=True))
    high = (jnp.maximum(a, b) for a, b in zip(first[2:], second[2:], strict=True))
    return (*low, *high)


def _intersection(first: Coordinates, second: Coordinates) -> Array:
    """Common area of boxes that broadcast; 0 with gradient 0 where they only touch."""
    x1, y1 = (jnp.maximum(a, b) for a, b in zip(first[:2], second[:2], strict=True))
    x2, y2 = (jnp.minimum(a, b) for a, b in zip(first[2:], second[2:], strict=True))
    width, height = x2 - x1, y2 - y1
    return jnp.where((width > 0) & (height > 0), width * height, 0)


def _intersection_and_union(first: Coordinates, second: Coordinates) -> tuple[Array, Array]:
    intersection = _intersection(first, second)
    return intersection, _area(first) + _area(second) - intersection


def _aspect_angle(boxes):
    """atan(width / height); 0 with gradient 0 for a point, which has no aspect ratio."""
    width, height = _sides(_coordinates(boxes))
    some = width**2 + height**2 > _MIN_AREA
    return jnp.where(some, jnp.arctan2(jnp.where(some, width, 0), jnp.where(some, height, 1)), 0)


def _ratio(numerator, denominator):
    """The quotient, 0 for a zero denominator. The inner `where` keeps NaN out of the gradient."""
    some = denominator > _MIN_AREA
    return jnp.where(some, numerator / jnp.where(some, denominator, 1), 0)


def _pair(pair):
    """(first, second) as float32: clipping and scaling by integer sizes must not truncate."""
    if not isinstance(pair, Array | np.ndarray):
        first, second = pair
    else:
        first, second = pair[..., 0], pair[..., 1]
    return jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32)
