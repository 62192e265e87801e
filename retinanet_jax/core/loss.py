"""The loss of a batch: class losses of all anchors plus box losses of the positive ones.

RetinaNet paper (arXiv 1708.02002), section 4 ("Inference and Training"): the sum over all anchors,
divided by the number of positives. The steps: losses of each anchor (anchor_losses.py), divisor
(loss_normalizer.py), sum (here).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from retinanet_jax.core.anchor_losses import (
    anchor_box_losses,
    anchor_losses,
    labels_of_valid,
)
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.box_outputs import BoxOutputs
from retinanet_jax.core.class_loss_total import total_class_loss
from retinanet_jax.core.focal import FocalParams
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.loss_normalizer import divisors, normalized_sum, sum_levels
from retinanet_jax.core.targets import Targets


class Losses(NamedTuple):
    """Scalars in float32."""

    total: Float[Array, ""]
    """class_loss + box_weight * box_loss, which training minimises."""
    class_loss: Float[Array, ""]
    """Class loss, normalised."""
    box_loss: Float[Array, ""]
    """Box loss, normalised, without box_weight; includes the losses of centre-ness and
    distributions if the network predicts them."""
    num_positives: Float[Array, ""]
    """Number of positive anchors of the batch."""


def retinanet_loss(
    class_logits: tuple[Float[ArrayLike, "b _ k"], ...],
    box_deltas: tuple[Float[ArrayLike, "b _ 4"] | BoxOutputs, ...],
    anchors: tuple[Float[ArrayLike, "_ 4"], ...],
    targets: Targets,
    valid: Bool[ArrayLike, "b"],
    config: LossConfig,
    *,
    focal: FocalParams | None = None,
    divisor: Float[ArrayLike, "b _"] | None = None,
    grids: tuple[tuple[int, int], ...] | None = None,
    map_images: Callable[[Callable], Callable] = jax.vmap,
) -> Losses:
    """Computes the loss of a batch: class loss of all anchors plus box loss of the positive ones.

    Anchors in the state IGNORE and images that are not valid contribute nothing. Under jit over a
    mesh, the arrays are those of the global batch, so the result does not depend on the number of
    devices.

    Args:
      class_logits: logits per level, [b n_l k], any float type.
      box_deltas: deltas per level, [b n_l 4], any float type; or BoxOutputs.
      anchors: anchors per level, [n_l 4], xyxy pixels.
      targets: labels [b n] and boxes [b n 4] over the anchors of all levels in order.
      valid: [b], False for the images that pad the last batch.
      config: losses, hard example mining and normaliser.
      focal: parameters of the class loss, which may be traced; None: those of the config.
      divisor: divisors from `divisors`; for a part of a batch, those of the whole batch. None:
        computed from this batch.
      grids: (height, width) of the grid of locations of each level, from `feature_shapes`. With
        them, a TPU reads the logits in the layout in which the head writes them.
      map_images: function that maps a function of one image over the batch: `jax.vmap`, or a
        variant that keeps each image on its device.

    Returns:
      Losses. Without positive anchors, the class loss of the negatives and a box loss of 0.
    """
    sizes = tuple(len(level) for level in anchors)
    focal = config.focal if focal is None else focal
    if divisor is None:
        divisor = divisors(targets.labels, valid, sizes, config)
    if grids is None or config.hard_examples is not None or config.needs_quality:
        of_classes, of_boxes = anchor_losses(
            class_logits,
            box_deltas,
            anchors,
            targets,
            valid,
            config,
            focal=focal,
            map_images=map_images,
        )
        class_loss = normalized_sum(of_classes, sizes, divisor)
    else:
        labels = labels_of_valid(targets, valid)
        class_loss = total_class_loss(
            class_logits, labels, divisor, grids, config.classification, focal
        )
        of_boxes = anchor_box_losses(box_deltas, anchors, targets.boxes, labels, config)
    box_loss = normalized_sum(of_boxes, sizes, divisor)
    total = class_loss + config.box_weight * box_loss
    positive = (targets.labels >= 0) & jnp.asarray(valid)[:, None]
    return Losses(total, class_loss, box_loss, jnp.sum(positive, dtype=jnp.float32))


class LossParts(NamedTuple):
    """The part of each pyramid level and image in the loss of a batch, float32."""

    class_loss: Float[Array, "l b"]
    """Class loss; its sum is Losses.class_loss."""
    box_loss: Float[Array, "l b"]
    """Box loss; its sum is Losses.box_loss."""
    num_positives: Float[Array, "l b"]
    """Number of positive anchors."""


def loss_parts(
    class_logits: tuple[Float[ArrayLike, "b _ k"], ...],
    box_deltas: tuple[Float[ArrayLike, "b _ 4"] | BoxOutputs, ...],
    anchors: tuple[Float[ArrayLike, "_ 4"], ...],
    targets: Targets,
    valid: Bool[ArrayLike, "b"],
    config: LossConfig,
    divisor: Float[ArrayLike, "b _"] | None = None,
) -> LossParts:
    """Returns the loss of a batch by level and image, for reports; see `retinanet_loss`."""
    sizes = tuple(len(level) for level in anchors)
    if divisor is None:
        divisor = divisors(targets.labels, valid, sizes, config)
    of_anchors = anchor_losses(class_logits, box_deltas, anchors, targets, valid, config)
    positive = (targets.labels >= 0) & jnp.asarray(valid)[:, None]
    parts = (sum_levels(losses, sizes) / divisor for losses in of_anchors)
    positives = sum_levels(positive.astype(jnp.float32), sizes)
    return LossParts(*(part.T for part in (*parts, positives)))
