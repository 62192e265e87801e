"""Soft-NMS: overlapping boxes get lower scores instead of being dropped.

Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code" (arXiv 1704.04503).
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from retinanet_jax.core import boxes as box_ops
from retinanet_jax.core.arrays import ArrayLike


# jit, so that calls outside of any jit compile the loop once.
@functools.partial(jax.jit, static_argnames=("method", "max_outputs"))
def soft_nms(
    boxes: Float[ArrayLike, "n 4"],
    scores: Float[ArrayLike, "n"],
    valid: Bool[ArrayLike, "n"],
    labels: Int[ArrayLike, "n"],
    *,
    method: str,
    max_outputs: int,
    score_threshold: float | Float[ArrayLike, ""],
    iou_threshold: float | Float[ArrayLike, ""] = 0.3,
    sigma: float | Float[ArrayLike, ""] = 0.5,
) -> tuple[Int32[Array, "d"], Float[Array, "d"], Bool[Array, "d"]]:
    """Returns the boxes with the highest scores after decay, and these scores (paper, figure 2).

    In each step, the box with the highest score is taken, and the scores of the other boxes of its
    class are multiplied by f(u), where u is their IoU with it. linear: f(u) = 1 - u if u is at
    least iou_threshold, else 1 (equation 2). gaussian: f(u) = exp(-u^2 / sigma) (equation 3). If
    scores are equal, the lower index comes first. Each output takes one step over all n boxes.

    Args:
      boxes: boxes, xyxy in pixels.
      scores: scores of the boxes, at least 0.
      valid: False for padding, which is ignored.
      labels: class of each box.
      method: 'linear' or 'gaussian'.
      max_outputs: number d of outputs, a Python int of at least 1.
      score_threshold: boxes whose decayed score is not above this are dropped.
      iou_threshold: for 'linear', the IoU from which scores decay, the paper's N_t (0.3); may be
        traced.
      sigma: for 'gaussian', the width of the decay (paper: 0.5); may be traced.

    Returns:
      Indices into the input and decayed scores in descending order, both 0 after the last box, and
      a mask.

    Raises:
      ValueError: the method is unknown, or `max_outputs` is below 1.
    """
    if method not in ("linear", "gaussian"):
        raise ValueError(f"soft_nms: method: {method!r} is not one of linear, gaussian")
    if max_outputs < 1:
        raise ValueError(f"soft_nms: max_outputs: {max_outputs} must be at least 1")
    empty = jnp.zeros(max_outputs, jnp.int32), jnp.zeros(max_outputs, jnp.float32)
    if boxes.shape[0] == 0:
        return *empty, jnp.zeros(max_outputs, bool)
    boxes, labels = jnp.asarray(boxes), jnp.asarray(labels)

    def decay(iou):
        if method == "gaussian":
            return jnp.exp(-jnp.square(iou) / sigma)
        return jnp.where(iou >= iou_threshold, 1 - iou, 1)

    def unfinished(state):
        count, left, _, _ = state
        return (count < max_outputs) & (jnp.max(left) > score_threshold)

    def take_best(state):
        count, left, indices, kept = state
        best = jnp.argmax(left).astype(jnp.int32)
        indices, kept = indices.at[count].set(best), kept.at[count].set(left[best])
        factors = decay(box_ops.pairwise_iou(boxes, boxes[best][None])[:, 0])
        left = jnp.where(labels == labels[best], left * factors, left)
        return count + 1, left.at[best].set(-jnp.inf), indices, kept

    left = jnp.where(valid, jnp.asarray(scores, jnp.float32), -jnp.inf)
    count, _, indices, kept = jax.lax.while_loop(unfinished, take_best, (0, left, *empty))
    return indices, kept, jnp.arange(max_outputs) < count
