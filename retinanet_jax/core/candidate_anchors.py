"""Candidate anchors of objects, for ATSS and task-aligned learning."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.targets import NEGATIVE

LEAST_DISTANCE = 0.01
"""Minimum distance of a positive anchor's centre from each side of its box, in pixels (as in the
code of ATSS)."""


def is_inside(
    points: Float[Array, "#m c 2"], gt_boxes: Float[ArrayLike, "m 4"]
) -> Bool[Array, "m c"]:
    """Whether each of the c points (x, y), of each box or of all of them, is inside the box."""
    x, y = points[..., 0], points[..., 1]
    x1, y1, x2, y2 = (gt_boxes[:, i, None] for i in range(4))
    return (jnp.minimum(x - x1, x2 - x) > LEAST_DISTANCE) & (
        jnp.minimum(y - y1, y2 - y) > LEAST_DISTANCE
    )


def owners(
    indices: Int[Array, "m c"], iou: Float[Array, "m c"], num_anchors: int
) -> Int[Array, "n"]:
    """Returns the box with the highest IoU for each anchor, or NEGATIVE.

    Args:
      indices: indices of the candidates of each box.
      iou: IoU of each candidate with the box; -1 if the candidate is not positive.
      num_anchors: the number n of anchors.
    """
    # One array for the maximum and for the comparison with it, as in iou_matching.py.
    iou = jax.lax.optimization_barrier(iou)
    best = jnp.full(num_anchors, -1, iou.dtype).at[indices].max(iou)
    rows = jnp.broadcast_to(jnp.arange(len(iou), dtype=jnp.int32)[:, None], iou.shape)
    # Candidates that are not the best of their anchor write past the end, which drops them.
    wins = (iou >= 0) & (iou == best[indices])
    first = jnp.full(num_anchors, len(iou), jnp.int32)
    first = first.at[jnp.where(wins, indices, num_anchors)].min(rows, mode="drop")
    return jnp.where(first < len(iou), first, NEGATIVE)
