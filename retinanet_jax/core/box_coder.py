"""The box coder: encodes boxes as deltas from anchors, and decodes them.

The encoding is that of R-CNN (arXiv 1311.2524), appendix C, which the RetinaNet paper keeps
(section 4, "Box Regression Subnet"). Boxes are xyxy in pixels. Boxes without area give finite
values and finite gradients.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from retinanet_jax.core.arrays import ArrayLike

MAX_LOG_SCALE = math.log(1000.0 / 16.0)
"""Upper bound of a decoded log side: 62.5 anchor sides (Detectron). It keeps exp finite."""

_MIN_SIDE = 1e-6
"""Shortest side in pixels; `encode` raises shorter sides to it before taking logarithms."""


def encode(
    anchors: Float[ArrayLike, "*#b 4"],
    boxes: Float[ArrayLike, "*#b 4"],
    weights: Sequence[float | int] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "*b 4"]:
    """Returns the deltas (dx, dy, dw, dh) that transform anchors into boxes.

    dx = (box centre - anchor centre) / anchor width, dw = log(box width / anchor width).

    Args:
      anchors: anchors, xyxy pixels; they broadcast against the boxes.
      boxes: target boxes, xyxy pixels.
      weights: factors of (dx, dy, dw, dh); RetinaNet uses ones.

    Returns:
      Deltas, dimensionless, finite even if a side is 0.
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
    """Returns the boxes that deltas describe: the inverse of `encode`.

    Args:
      anchors: anchors, xyxy pixels; they broadcast against the deltas.
      deltas: (dx, dy, dw, dh), dimensionless. Narrower floats are converted to float32 first.
      weights: factors of (dx, dy, dw, dh), as in `encode`.
      max_log_scale: upper bound of dw and dh.
      min_log_scale: lower bound of dw and dh; none by default (as in Detectron and torchvision).

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


def _centre_form(boxes: ArrayLike) -> tuple[Array, Array, Array, Array]:
    """Centre x and y, width and height."""
    boxes = jnp.asarray(boxes)
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height, width, height
