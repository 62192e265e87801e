"""Weighted boxes fusion: the boxes of an object in several views become their weighted mean.

Solovyev, Wang and Gabruseva, "Weighted boxes fusion" (arXiv 1910.13302), section 3. A fused box has
the highest score of its boxes. The paper takes the mean of the scores, lowered if few models found
the object. Here, the number of tiles that show an object depends on its place, so such a score
would depend on the place.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.boxes import pairwise_iou


class _Clusters(NamedTuple):
    """Clusters in the order of their first boxes: fused box, sum of the scores, label, number."""

    boxes: Array
    weights: Array
    scores: Array
    labels: Array
    count: Array


@functools.partial(jax.jit, static_argnames="max_outputs")
def fuse_boxes(
    boxes: Float[ArrayLike, "n 4"],
    scores: Float[ArrayLike, "n"],
    labels: Int[ArrayLike, "n"],
    valid: Bool[ArrayLike, "n"],
    *,
    iou_threshold: float | Float[ArrayLike, ""],
    max_outputs: int,
) -> tuple[Float[Array, "d 4"], Float[Array, "d"], Int32[Array, "d"], Bool[Array, "d"]]:
    """Returns the best `max_outputs` fused boxes, scores, labels and a mask, by descending score.

    Boxes are visited by descending score. Each joins the fused box of its class with the highest
    IoU, if that is strictly above `iou_threshold`, and moves it to the mean of its boxes, weighted
    by their scores. Otherwise it starts a new fused box.

    Args:
      boxes: xyxy in pixels.
      scores: scores of the boxes, above 0.
      labels: class of each box.
      valid: False for padding, which is ignored.
      iou_threshold: boxes with an IoU strictly above this are fused, in [0, 1]; may be traced.
      max_outputs: d, a Python int, at most n.
    """
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    boxes, scores, labels = (jnp.asarray(x)[order] for x in (boxes, scores, labels))
    places = jnp.arange(len(scores))

    def visit(i, clusters: _Clusters) -> _Clusters:
        overlaps = pairwise_iou(clusters.boxes, boxes[i][None])[:, 0]
        overlaps = jnp.where(clusters.labels == labels[i], overlaps, 0.0)
        overlaps = jnp.where(places < clusters.count, overlaps, -1.0)
        best = jnp.argmax(overlaps)
        joins = overlaps[best] > iou_threshold
        at = jnp.where(joins, best, clusters.count)
        weight = jnp.where(joins, clusters.weights[at], 0.0)
        total = weight + scores[i]
        mean = clusters.boxes[at] + (boxes[i] - clusters.boxes[at]) * (scores[i] / total)
        return _Clusters(
            boxes=clusters.boxes.at[at].set(mean),
            weights=clusters.weights.at[at].set(total),
            scores=clusters.scores.at[at].max(scores[i]),
            labels=clusters.labels.at[at].set(labels[i]),
            count=clusters.count + ~joins,
        )

    zeros = jnp.zeros_like(scores)
    start = _Clusters(jnp.zeros_like(boxes), zeros, zeros, jnp.zeros_like(labels), jnp.int32(0))
    found = jax.lax.fori_loop(0, jnp.sum(valid), visit, start)
    best = slice(max_outputs)
    # New clusters come by falling score.
    kept = places[best] < found.count
    return found.boxes[best], found.scores[best], found.labels[best], kept
