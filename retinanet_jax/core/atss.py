"""Adaptive training sample selection: a threshold for each object from its own candidates.

ATSS: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
Training Sample Selection" (arXiv 1912.02424), algorithm 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core import boxes
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.candidate_anchors import is_inside, owners
from retinanet_jax.core.targets import NEGATIVE


def match_atss(
    anchors: tuple[Float[ArrayLike, "_ 4"], ...],
    gt_boxes: Float[ArrayLike, "m 4"],
    valid: Bool[ArrayLike, "m"],
    *,
    locations: int = 9,
    anchors_per_location: int = 1,
) -> Int[Array, "n"]:
    """Matches the anchors of all levels to the boxes of one image.

    The candidates of a box are, on each level, the anchors of the `locations` locations whose
    centres are closest to the centre of the box. Its threshold is the mean of their IoUs with the
    box plus their standard deviation. Candidates with at least this IoU, and with their centre
    inside the box, are positive; an anchor of several boxes takes the one with the highest IoU. As
    in the authors' code, the deviation is that of a sample (divided by their number minus one), and
    if a location has several anchors, all of them are candidates. Unlike in their code, the
    threshold is at most the highest IoU: with one anchor per location on fewer than five levels,
    large objects have groups of candidates with equal IoUs, all of them below the sum.

    Args:
      anchors: anchors per level, xyxy pixels; the anchors of a location are consecutive and share a
        centre.
      gt_boxes: boxes of m objects in the same pixels; padding may have any finite values.
      valid: False for padding and crowds, which match nothing.
      locations: the paper's k (9); on a level with fewer locations, all of them.
      anchors_per_location: number of anchors at each location, equal on all levels.

    Returns:
      int32: the index of the matched box (the lowest of ties) or NEGATIVE.
    """
    gt_boxes, valid = jnp.asarray(gt_boxes), jnp.asarray(valid)
    every = jnp.concatenate(anchors)
    if gt_boxes.shape[0] == 0:
        return jnp.full(every.shape[:1], NEGATIVE, jnp.int32)
    indices = _candidates(anchors, gt_boxes, locations, anchors_per_location)
    found = every[indices]
    # One array for the threshold and for the comparison with it, as in iou_matching.py.
    iou = jax.lax.optimization_barrier(
        boxes.iou(found, jnp.broadcast_to(gt_boxes[:, None], found.shape))
    )
    threshold = jnp.mean(iou, axis=1) + jnp.std(iou, axis=1, ddof=min(1, iou.shape[1] - 1))
    threshold = jnp.minimum(threshold, jnp.max(iou, axis=1))
    positive = (
        (iou >= threshold[:, None]) & is_inside(boxes.centres(found), gt_boxes) & valid[:, None]
    )
    return owners(indices, jnp.where(positive, iou, -1), len(every))


def _candidates(anchors, gt_boxes, locations, anchors_per_location) -> Int[Array, "m c"]:
    """Indices of the candidates of each box among the anchors of all levels."""
    centres, start, found = boxes.centres(gt_boxes)[:, None], 0, []
    for level in anchors:
        points = boxes.centres(level[::anchors_per_location])
        distances = sum((points[:, i] - centres[..., i]) ** 2 for i in range(2))
        # Of equal distances, top_k takes the first.
        _, nearest = jax.lax.top_k(-distances, min(locations, len(points)))
        indices = nearest[..., None] * anchors_per_location + jnp.arange(anchors_per_location)
        found.append(start + indices.reshape(len(gt_boxes), -1))
        start += len(level)
    return jnp.concatenate(found, axis=1)
