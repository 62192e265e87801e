"""The loss of a batch: class losses of all anchors plus box losses of the positive ones.

RetinaNet paper (arXiv 1708.02002), section 4 ("Inference and Training"): the sum over all anchors,
divided by the number of positives. The elementwise losses are unreduced; `retinanet_loss` alone
masks, normalises and sums.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from retinanet_jax import boxes
from retinanet_jax.losses.box import box_losses
from retinanet_jax.losses.classification import class_losses
from retinanet_jax.losses.config import LossConfig
from retinanet_jax.losses.mining import hardest
from retinanet_jax.losses.normalizer import divisors
from retinanet_jax.matching import IGNORE, Targets

ArrayLike = Array | np.ndarray
Scalar = float | int | np.number | Float[ArrayLike, ""]


class Losses(NamedTuple):
    """Scalars in float32."""

    total: Float[Array, ""]
    """class_loss + box_weight * box_loss: what is minimised."""
    class_loss: Float[Array, ""]
    """Class loss, normalised."""
    box_loss: Float[Array, ""]
    """Box loss, normalised, without box_weight."""
    num_positives: Float[Array, ""]
    """Positive anchors of the whole batch (0 if there are none)."""


def retinanet_loss(
    class_logits: tuple[Float[ArrayLike, "b _ k"], ...],
    box_deltas: tuple[Float[ArrayLike, "b _ 4"], ...],
    anchors: tuple[Float[ArrayLike, "_ 4"], ...],
    targets: Targets,
    valid: Bool[ArrayLike, "b"],
    config: LossConfig,
    *,
    gamma: Scalar | None = None,
    alpha: Scalar | None = None,
    star_beta: Scalar | None = None,
    divisor: Float[ArrayLike, "b _"] | None = None,
) -> Losses:
    """The loss of a batch: class loss of all anchors plus box loss of the positive ones.

    Anchors of state IGNORE and images that are not valid add nothing. Under jit over a mesh the
    arrays are those of the whole batch, so that the result does not depend on the number of
    devices.

    Args:
      class_logits: per level, [b n_l k], any float type.
      box_deltas: per level, [b n_l 4], any float type.
      anchors: per level, [n_l 4], xyxy pixels.
      targets: labels [b n] and boxes [b n 4] over the anchors of all levels in order.
      valid: [b], False for the images that fill up the last batch.
      config: losses, choice of anchors and normaliser.
      gamma: in place of config.gamma; may be traced, so that a sweep compiles once.
      alpha: in place of config.alpha; may be traced.
      star_beta: in place of config.star_beta; may be traced.
      divisor: from `divisors`: for a part of a batch that of the whole. None: this batch is
        whole.

    Returns:
      Losses. Without positive anchors the class loss is that of the negatives, the box loss 0.
    """
    parameters = {
        "gamma": config.gamma if gamma is None else gamma,
        "alpha": config.alpha if alpha is None else alpha,
        "star_beta": config.star_beta if star_beta is None else star_beta,
    }
    sizes = tuple(len(level) for level in anchors)
    if divisor is None:
        divisor = divisors(targets.labels, valid, sizes, config)
    anchors = jnp.concatenate(anchors)
    deltas = jnp.concatenate(box_deltas, axis=1, dtype=jnp.float32)
    labels = jnp.where(jnp.asarray(valid)[:, None], targets.labels, IGNORE)
    positive = labels >= 0
    quality = _quality(deltas, anchors, targets.boxes) if config.needs_quality else None
    of_classes = _class_losses(class_logits, labels, quality, sizes, config, parameters)
    of_boxes = jnp.where(positive, box_losses(deltas, anchors, targets.boxes, config), 0)
    if config.hard_examples:
        chosen = hardest(of_classes + config.box_weight * of_boxes, labels, anchors, config)
        of_classes, of_boxes = jnp.where(chosen, of_classes, 0), jnp.where(chosen, of_boxes, 0)
    class_loss, box_loss = (_sum(losses, sizes, divisor) for losses in (of_classes, of_boxes))
    total = class_loss + config.box_weight * box_loss
    return Losses(total, class_loss, box_loss, jnp.sum(positive, dtype=jnp.float32))


def _quality(deltas, anchors, target_boxes):
    """IoU of the predicted boxes with the matched ones [b n]: a target, so without gradient."""
    return boxes.iou(boxes.decode(anchors, jax.lax.stop_gradient(deltas)), target_boxes)


def _class_losses(class_logits, labels, quality, sizes, config, parameters):
    """Class loss of every anchor: [b n].

    Level by level, since joined logits would be a second copy of the largest array of the step.
    """
    qualities = [None] * len(sizes) if quality is None else _split(quality, sizes)
    levels = zip(class_logits, _split(labels, sizes), qualities, strict=True)
    return jnp.concatenate(
        [
            class_losses(logits, part, config, quality=quality, **parameters)
            for logits, part, quality in levels
        ],
        axis=1,
    )


def _sum(losses, sizes, divisor):
    """One number from the losses [b n]: those of each image and level by their divisor."""
    if divisor.shape[1] == 1:  # the same for all levels: without a split, XLA fuses losses and sum
        return jnp.sum(jnp.sum(losses, axis=1) / divisor[:, 0])
    sums = jnp.stack([jnp.sum(level, axis=1) for level in _split(losses, sizes)], axis=1)
    return jnp.sum(sums / divisor)


def _split(array, sizes):
    """The levels' parts of an array over all anchors [b n]."""
    return jnp.split(array, np.cumsum(sizes)[:-1], axis=1)
