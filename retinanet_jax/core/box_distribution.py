"""Boxes as distributions: the distribution focal loss (Li et al., arXiv 2006.04388, section 3.2).

For each side of a box, the head predicts a distribution over steps: distances 0, 1, 2, ... from the
centre of the anchor. Its mean is the distance of the side. In the paper, a step is the stride, and
anchors have 8 strides. Here, a step is an eighth of the anchor, which is the same for such anchors
and fits the anchors of every config. The head also returns the deltas of the boxes, which are used
by everything but the loss.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.boxes import side_distances

STEPS = 8
"""Number of steps in the width or height of an anchor."""

_LEAST = 1e-6
"""Minimum width and height of a predicted box, relative to its anchor."""


def deltas_of(logits: Float[ArrayLike, "*b 4 bins"]) -> Float[Array, "*b 4"]:
    """Returns the deltas (dx, dy, dw, dh) of the boxes whose sides are the distributions' means.

    Args:
      logits: logits of the distances to the left, upper, right and lower side.
    """
    logits = jnp.asarray(logits)
    steps = jnp.arange(logits.shape[-1], dtype=logits.dtype)
    distances = jnp.sum(jax.nn.softmax(logits) * steps, axis=-1) / STEPS
    first, second = distances[..., :2], distances[..., 2:]
    # Where both sides are certain of step 0, the sum can be 0, whose log has no finite gradient.
    size = jnp.maximum(first + second, _LEAST)
    return jnp.concatenate([(second - first) / 2, jnp.log(size)], axis=-1)


def distribution_losses(
    logits: Float[ArrayLike, "*b n 4 bins"],
    anchors: Float[ArrayLike, "n 4"],
    gt_boxes: Float[ArrayLike, "*b n 4"],
) -> Float[Array, "*b n"]:
    """Computes the distribution focal loss, equation 6, as if all anchors were positive.

    It is the cross entropy with a target on the two steps around the distance, whose mean is the
    distance. For distances beyond the steps, the target is on the nearest step.

    Args:
      logits: logits as in `deltas_of`.
      anchors: anchors, xyxy pixels.
      gt_boxes: boxes of their objects, in the same pixels.

    Returns:
      The mean over the four sides.
    """
    logits, anchors = jnp.asarray(logits), jnp.asarray(anchors)
    bins, size = logits.shape[-1], anchors[..., 2:] - anchors[..., :2]
    sides = side_distances(anchors, gt_boxes)
    distances = STEPS * sides / jnp.concatenate([size, size], axis=-1)
    distances = jnp.clip(distances, 0, bins - 1)[..., None]
    target = jnp.maximum(1 - jnp.abs(jnp.arange(bins) - distances), 0)
    return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1), axis=-1)
