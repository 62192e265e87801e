"""Axis-aligned boxes: areas, overlaps, the box coder, clipping and scaling.

A box is (x1, y1, x2, y2) in absolute pixels of the array it belongs to. Sides are x2 - x1 and y2 -
y1, without the "+1" of Detectron 1. Every function is pure, differentiable, and takes numpy or JAX
arrays. Boxes without area (padding is all zeros) give finite values and finite gradients
everywhere.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

ArrayLike = Array | np.ndarray
Number = float | int | np.number | Num[ArrayLike, ""]
Pair = Num[ArrayLike, "... 2"] | Sequence[Number]

MAX_LOG_SCALE = math.log(1000.0 / 16.0)
"""A decoded side is at most 62.5 anchor sides (Detectron's bound; it keeps exp from
overflowing)."""

_MIN_AREA = 1e-12
"""Square pixels. Ratios over less count as 0; 1 / _MIN_AREA**2, met in gradients, is still a
float32."""

_MIN_SIDE = 1e-6
"""Pixels. The box coder takes logarithms and quotients of sides no shorter than this."""


def area(boxes: Float[ArrayLike, "*b 4"]) -> Float[Array, "*b"]:
    """Areas in square pixels; a box whose corners are swapped has area 0."""
    width, height = _sides(boxes)
    # Not jnp.maximum: its gradient is one half at 0, and a flat box has to grow like any other.
    return jnp.where(width >= 0, width, 0) * jnp.where(height >= 0, height, 0)


def pairwise_iou(
    boxes1: Float[ArrayLike, "n 4"], boxes2: Float[ArrayLike, "m 4"]
) -> Float[Array, "n m"]:
    """Intersection over union of every box of the first set with every box of the second.

    Args:
      boxes1: n boxes, xyxy pixels.
      boxes2: m boxes of the same image, xyxy pixels.

    Returns:
      Values in [0, 1]; 0 where both boxes are without area (torchvision's `box_iou` gives NaN
      there).
    """
    rows, columns = jnp.asarray(boxes1)[:, None], jnp.asarray(boxes2)[None]
    return _ratio(*_intersection_and_union(rows, columns))


def pairwise_ioa(
    boxes: Float[ArrayLike, "n 4"], regions: Float[ArrayLike, "m 4"]
) -> Float[Array, "n m"]:
    """Share of each box that lies inside each region: intersection over the area of the box.

    COCO's evaluation measures overlap with crowd regions in this way, since a region holds many
    objects.

    Args:
      boxes: n boxes, xyxy pixels.
      regions: m regions of the same image, xyxy pixels.

    Returns:
      Values in [0, 1]; 0 for a box without area.
    """
    rows, columns = jnp.asarray(boxes)[:, None], jnp.asarray(regions)[None]
    return _ratio(_intersection(rows, columns), area(rows))


def iou(boxes1: Float[ArrayLike, "*b 4"], boxes2: Float[ArrayLike, "*b 4"]) -> Float[Array, "*b"]:
    """Intersection over union of corresponding boxes.

    Args:
      boxes1: boxes, xyxy pixels.
      boxes2: as many boxes, xyxy pixels.

    Returns:
      Values in [0, 1]; 0 where both boxes are without area.
    """
    boxes1, boxes2 = jnp.asarray(boxes1), jnp.asarray(boxes2)
    return _ratio(*_intersection_and_union(boxes1, boxes2))


def hull(
    boxes1: Float[ArrayLike, "*b 4"], boxes2: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b 4"]:
    """The smallest box around both of corresponding boxes, xyxy pixels."""
    boxes1, boxes2 = jnp.asarray(boxes1), jnp.asarray(boxes2)
    low = jnp.minimum(boxes1[..., :2], boxes2[..., :2])
    high = jnp.maximum(boxes1[..., 2:], boxes2[..., 2:])
    return jnp.concatenate([low, high], axis=-1)


def generalized_iou(
    boxes1: Float[ArrayLike, "*b 4"], boxes2: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """Generalized IoU of corresponding boxes: IoU - (hull - union) / hull.

    Rezatofighi et al., "Generalized Intersection over Union" (arXiv 1902.09630), algorithm 1. The
    hull is the smallest box around both. Equals torchvision's `generalized_box_iou_loss` (1 - this
    value).

    Args:
      boxes1: boxes, xyxy pixels.
      boxes2: as many boxes, xyxy pixels.

    Returns:
      Values in [-1, 1]: 1 for equal boxes, towards -1 for distant ones.
    """
    boxes1, boxes2 = jnp.asarray(boxes1), jnp.asarray(boxes2)
    intersection, union = _intersection_and_union(boxes1, boxes2)
    around = area(hull(boxes1, boxes2))
    return _ratio(intersection, union) - _ratio(around - union, around)


def distance_iou(
    boxes1: Float[ArrayLike, "*b 4"], boxes2: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """Distance IoU of corresponding boxes: IoU - (distance of centres / diagonal of hull)^2.

    Zheng et al., "Distance-IoU Loss" (arXiv 1911.08287), equation 7. Equals torchvision's
    `distance_box_iou_loss` (1 - this value).

    Args:
      boxes1: boxes, xyxy pixels.
      boxes2: as many boxes, xyxy pixels.

    Returns:
      Values in [-1, 1]: 1 for equal boxes, the IoU for boxes around one centre.
    """
    boxes1, boxes2 = jnp.asarray(boxes1), jnp.asarray(boxes2)
    apart = 0.5 * (boxes1[..., :2] + boxes1[..., 2:] - boxes2[..., :2] - boxes2[..., 2:])
    diagonal = jnp.stack(_sides(hull(boxes1, boxes2)), axis=-1)
    penalty = _ratio(jnp.sum(apart**2, axis=-1), jnp.sum(diagonal**2, axis=-1))
    return iou(boxes1, boxes2) - penalty


def complete_iou(
    boxes1: Float[ArrayLike, "*b 4"], boxes2: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """Complete IoU of corresponding boxes: distance IoU - weight * v, v from the aspect ratios.

    Zheng et al. (arXiv 1911.08287), equations 8 to 11: v = (2 / pi)^2 (difference of the angles
    atan(width / height))^2, weight = v / (1 - IoU + v), through which no gradient flows. Equals
    torchvision's `complete_box_iou_loss` (1 - this value).

    Args:
      boxes1: boxes, xyxy pixels.
      boxes2: as many boxes, xyxy pixels.

    Returns:
      Values in [-2, 1]: 1 for equal boxes, the distance IoU for boxes of one aspect ratio.
    """
    v = (2 / math.pi * (_aspect_angle(boxes1) - _aspect_angle(boxes2))) ** 2
    weight = jax.lax.stop_gradient(_ratio(v, 1 - iou(boxes1, boxes2) + v))
    return distance_iou(boxes1, boxes2) - weight * v


def encode(
    anchors: Float[ArrayLike, "*#b 4"],
    boxes: Float[ArrayLike, "*#b 4"],
    weights: Sequence[float | int] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "*b 4"]:
    """The deltas (dx, dy, dw, dh) that lead from anchors to boxes.

    dx = (box centre - anchor centre) / anchor width, dw = log(box width / anchor width); R-CNN
    (arXiv 1311.2524), appendix C, which the RetinaNet paper keeps (section 4, "Box Regression
    Subnet").

    Args:
      anchors: anchors, xyxy pixels; they broadcast against the boxes.
      boxes: the boxes to be reached, xyxy pixels.
      weights: factors of (dx, dy, dw, dh); RetinaNet has ones.

    Returns:
      Deltas without unit, finite even where a side is 0.
    """
    anchor_x, anchor_y, anchor_width, anchor_height = _centre_form(anchors)
    box_x, box_y, box_width, box_height = _centre_form(boxes)
    anchor_width, anchor_height, box_width, box_height = (
        jnp.maximum(side, _MIN_SIDE)
        for side in (anchor_width, anchor_height, box_width, box_height)
    )
    deltas = (
        (box_x - anchor_x) / anchor_width,
        (box_y - anchor_y) / anchor_height,
        jnp.log(box_width / anchor_width),
        jnp.log(box_height / anchor_height),
    )
    return jnp.stack([d * w for d, w in zip(deltas, weights, strict=True)], axis=-1)


def decode(
    anchors: Float[ArrayLike, "*#b 4"],
    deltas: Float[ArrayLike, "*#b 4"],
    *,
    weights: Sequence[float | int] = (1.0, 1.0, 1.0, 1.0),
    max_log_scale: float | int = MAX_LOG_SCALE,
    min_log_scale: float | int = -math.inf,
) -> Float[Array, "*b 4"]:
    """The boxes that deltas describe: the inverse of `encode`.

    Args:
      anchors: anchors, xyxy pixels; they broadcast against the deltas.
      deltas: (dx, dy, dw, dh) without unit. Narrower floats are widened to float32 first.
      weights: the weights given to `encode`.
      max_log_scale: upper bound of dw and dh.
      min_log_scale: lower bound of dw and dh; by default there is none (as in Detectron and
        torchvision).

    Returns:
      Boxes, xyxy pixels, not clipped to any image.
    """
    deltas = jnp.asarray(deltas)
    deltas = deltas.astype(jnp.promote_types(deltas.dtype, jnp.float32))
    dx, dy, dw, dh = (deltas[..., i] / weights[i] for i in range(4))
    anchor_x, anchor_y, anchor_width, anchor_height = _centre_form(anchors)
    x, y = dx * anchor_width + anchor_x, dy * anchor_height + anchor_y
    if min_log_scale > -math.inf:
        dw, dh = jnp.maximum(dw, min_log_scale), jnp.maximum(dh, min_log_scale)
    half_width = 0.5 * anchor_width * jnp.exp(jnp.minimum(dw, max_log_scale))
    half_height = 0.5 * anchor_height * jnp.exp(jnp.minimum(dh, max_log_scale))
    corners = (x - half_width, y - half_height, x + half_width, y + half_height)
    return jnp.stack(corners, axis=-1)


def clip(boxes: Float[ArrayLike, "*b 4"], image_size: Pair) -> Float[Array, "*b 4"]:
    """Boxes cut off at the borders of the image.

    Args:
      boxes: boxes, xyxy pixels.
      image_size: (height, width) in pixels: two scalars, or an array whose last axis has length 2
        and whose other axes broadcast against those of the boxes ([b 1 2] for boxes [b n 4]).

    Returns:
      Boxes with x in [0, width] and y in [0, height]. One that lies outside becomes flat on the
      border.
    """
    height, width = _pair(image_size)
    return jnp.clip(boxes, 0, jnp.stack([width, height, width, height], axis=-1))


def scale(boxes: Float[ArrayLike, "*b 4"], factors: Pair) -> Float[Array, "*b 4"]:
    """Boxes of an image that was resized.

    Args:
      boxes: boxes, xyxy pixels of the image before.
      factors: (y, x): new height / old height, new width / old width; scalars or an array as in
        `clip`.

    Returns:
      Boxes, xyxy pixels of the image after.
    """
    y, x = _pair(factors)
    return jnp.asarray(boxes) * jnp.stack([x, y, x, y], axis=-1)


def _sides(boxes):
    boxes = jnp.asarray(boxes)
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def _centre_form(boxes):
    boxes = jnp.asarray(boxes)
    width, height = _sides(boxes)
    return boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height, width, height


def _intersection(boxes1, boxes2):
    """Area common to boxes that broadcast; exactly 0, with gradient 0, where they only touch."""
    low = jnp.maximum(boxes1[..., :2], boxes2[..., :2])
    high = jnp.minimum(boxes1[..., 2:], boxes2[..., 2:])
    width, height = high[..., 0] - low[..., 0], high[..., 1] - low[..., 1]
    return jnp.where((width > 0) & (height > 0), width * height, 0)


def _intersection_and_union(boxes1, boxes2):
    intersection = _intersection(boxes1, boxes2)
    return intersection, area(boxes1) + area(boxes2) - intersection


def _aspect_angle(boxes):
    """atan(width / height); 0, with gradient 0, for a point, which has no aspect ratio."""
    width, height = _sides(boxes)
    some = width**2 + height**2 > _MIN_AREA
    return jnp.where(some, jnp.arctan2(jnp.where(some, width, 0), jnp.where(some, height, 1)), 0)


def _ratio(numerator, denominator):
    """The quotient, or 0 over nothing. The inner `where` keeps NaN out of the gradient as well."""
    some = denominator > _MIN_AREA
    return jnp.where(some, numerator / jnp.where(some, denominator, 1), 0)


def _pair(pair):
    """Splits (first, second) as float arrays; division by an integer image size must not round."""
    if not isinstance(pair, Array | np.ndarray):
        first, second = pair
    else:
        first, second = pair[..., 0], pair[..., 1]
    return jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32)
