"""Task-aligned learning: chooses the anchors whose predictions fit an object best.

Feng et al., "TOOD: Task-aligned One-stage Object Detection" (arXiv 2108.07755), section 3.2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core import boxes
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.candidate_anchors import is_inside, owners
from retinanet_jax.core.targets import NEGATIVE


def match_task_aligned(
    anchors: Float[ArrayLike, "n 4"],
    class_logits: tuple[Float[ArrayLike, "_ k"], ...],
    predicted_boxes: Float[ArrayLike, "n 4"],
    gt_boxes: Float[ArrayLike, "m 4"],
    gt_labels: Int[ArrayLike, "m"],
    valid: Bool[ArrayLike, "m"],
    *,
    count: int = 13,
    score_power: float | int = 1.0,
    iou_power: float | int = 6.0,
) -> Int[Array, "n"]:
    """Matches anchors to the boxes of one image by the alignment of their predictions.

    The alignment of an anchor with an object is t = s^alpha u^beta, equation 2 of the paper: s is
    the predicted probability of the object's class, u the IoU of the predicted box with the object.
    Of the anchors with their centre in the object and t above 0, the `count` anchors with the
    highest t are positive. The paper does not describe the choice for an anchor of several objects;
    here it takes the object with the highest u, as in MMDetection, which also takes the highest t
    first and removes centres outside the object afterwards. No gradient flows through the matches.

    Args:
      anchors: anchors of all levels, xyxy pixels.
      class_logits: logits per level.
      predicted_boxes: decoded boxes, xyxy pixels.
      gt_boxes: boxes of m objects in the same pixels; padding may have any finite values.
      gt_labels: class indices; any value where not valid.
      valid: False for padding and crowds, which match nothing.
      count: number of positive anchors per object, the paper's m (13).
      score_power: the paper's alpha (1).
      iou_power: the paper's beta (6).

    Returns:
      int32: the index of the matched box (the lowest of ties) or NEGATIVE.
    """
    gt_boxes, gt_labels, valid = map(jnp.asarray, (gt_boxes, gt_labels, valid))
    num_anchors = len(anchors)
    if gt_boxes.shape[0] == 0:
        return jnp.full(num_anchors, NEGATIVE, jnp.int32)
    scores = jnp.concatenate([_scores(logits, gt_labels) for logits in class_logits], axis=1)
    alignment = scores**score_power * boxes.pairwise_iou(gt_boxes, predicted_boxes) ** iou_power
    inside = is_inside(boxes.centres(anchors)[None], gt_boxes)
    best, indices = jax.lax.top_k(jnp.where(inside, alignment, 0), min(count, num_anchors))
    found = jnp.asarray(predicted_boxes)[indices]
    iou = boxes.iou(found, jnp.broadcast_to(gt_boxes[:, None], found.shape))
    positive = (best > 0) & valid[:, None]
    return owners(indices, jnp.where(positive, iou, -1), num_anchors)


def normalized_alignment(
    class_logits: tuple[Float[ArrayLike, "_ k"], ...],
    predicted_boxes: Float[ArrayLike, "n 4"],
    matches: Int[ArrayLike, "n"],
    labels: Int[ArrayLike, "n"],
    boxes_of_matches: Float[ArrayLike, "n 4"],
    num_boxes: int,
    *,
    score_power: float | int = 1.0,
    iou_power: float | int = 6.0,
) -> Float[Array, "n"]:
    """Returns the paper's class target of the positives: t scaled to the highest u of each object.

    With t and u as in `match_task_aligned`, over the positives of an object:

        target = t / max t * max u

    The target of the best aligned anchor of an object is the highest IoU of its anchors. The paper
    weights the box loss by the same numbers. MMDetection divides both losses by the sum of the
    targets; here loss.normalizer counts positives.

    Args:
      class_logits: logits per level.
      predicted_boxes: decoded boxes, xyxy pixels.
      matches: index of the object of each anchor; negative without an object.
      labels: class of this object.
      boxes_of_matches: box of this object, in the same pixels.
      num_boxes: the number m of boxes, above every index.
      score_power: the paper's alpha (1).
      iou_power: the paper's beta (6).

    Returns:
      Values in [0, 1]; 0 for anchors without an object.
    """
    matches = jnp.asarray(matches)
    # By level: concatenated logits would be a copy of the largest array of the step.
    ends = np.cumsum([len(level) for level in class_logits])[:-1]
    levels = zip(class_logits, jnp.split(jnp.asarray(labels), ends), strict=True)
    scores = jnp.concatenate([_own_scores(*level) for level in levels])
    iou = jnp.where(matches >= 0, boxes.iou(predicted_boxes, boxes_of_matches), 0)
    alignment = jnp.where(matches >= 0, scores**score_power * iou**iou_power, 0)
    own = matches[:, None] == jnp.arange(num_boxes)
    highest_iou, highest = (
        jnp.max(jnp.where(own, values[:, None], 0), axis=0) for values in (iou, alignment)
    )
    factors = jnp.where(highest > 0, highest_iou / jnp.where(highest > 0, highest, 1), 0)
    # A product with a one-hot matrix, as in `_scores`.
    factor = jnp.dot(own.astype(jnp.float32), factors, precision="highest")
    return jnp.minimum(alignment * factor, 1)


def _own_scores(logits: Float[ArrayLike, "l k"], labels: Int[Array, " l"]) -> Float[Array, " l"]:
    """Predicted probability of each anchor's own label."""
    own = labels[:, None] == jnp.arange(logits.shape[-1])
    chosen = jnp.where(own, jnp.asarray(logits, jnp.float32), 0)
    return jax.nn.sigmoid(jnp.sum(chosen, axis=1))


def _scores(logits: Float[ArrayLike, "l k"], labels: Int[Array, "m"]) -> Float[Array, "m l"]:
    """Predicted probability of each object's class at each anchor.

    By a product with a one-hot matrix, which is exact at the highest precision: TPUs gather slowly.
    """
    one_hot = labels[:, None] == jnp.arange(logits.shape[-1])
    chosen = jnp.einsum(
        "mk,lk->ml",
        one_hot.astype(jnp.float32),
        jnp.asarray(logits, jnp.float32),
        precision="highest",
    )
    return jax.nn.sigmoid(chosen)
