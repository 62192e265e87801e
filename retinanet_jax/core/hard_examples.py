"""Online hard example mining (OHEM): training only on the anchors with the highest loss.

Shrivastava et al. 2016 (arXiv 1604.03540): score each example by its loss, remove examples that
overlap a harder one by NMS, and keep the hardest. RetinaNet's paper (section 5.1) compares it with
focal loss.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.nms import nms
from retinanet_jax.core.targets import IGNORE


def hardest(
    losses: Float[ArrayLike, "b n"],
    labels: Int[ArrayLike, "b n"],
    anchors: Float[ArrayLike, "n 4"],
    config: LossConfig,
    map_images: Callable[[Callable], Callable] = jax.vmap,
) -> Bool[Array, "b n"]:
    """Chooses the anchors of each image to train on; no gradient flows through the choice.

    With a quota, NMS and the choice run separately for positives and negatives: one in 1 +
    negatives_per_positive of the hard_examples is reserved for positives, and at most
    negatives_per_positive negatives are chosen for each positive found. An image without positives
    then has no examples.

    Args:
      losses: loss of each anchor; the highest losses are chosen.
      labels: class index, NEGATIVE or IGNORE; ignored anchors are never chosen.
      anchors: anchors, xyxy pixels. NMS compares anchors instead of predicted boxes, which say
        nothing about neighbourhood at the start of training.
      config: settings, of which hard_examples, hard_examples_iou and negatives_per_positive are
        read.
      map_images: function that maps over the batch, as in `retinanet_loss`.
    """
    losses = jax.lax.stop_gradient(jnp.asarray(losses))
    choose = functools.partial(_hardest_of_image, anchors=anchors, config=config)
    return map_images(choose)(losses, jnp.asarray(labels))


def _hardest_of_image(losses, labels, anchors, config):
    def first(valid, count):
        """Indices [count] of the hardest anchors in descending order, and which are valid."""
        return nms(
            anchors,
            losses,
            valid,
            iou_threshold=float(config.hard_examples_iou),
            max_outputs=count,
        )

    size, ratio = config.hard_examples, config.negatives_per_positive
    chosen = jnp.zeros(labels.shape, bool)
    if ratio is None:
        indices, found = first(labels != IGNORE, size)
        return chosen.at[indices].max(found)
    positives, found = first(labels >= 0, size // (1 + ratio))
    chosen = chosen.at[positives].max(found)
    negatives, exist = first((labels < 0) & (labels != IGNORE), size - size // (1 + ratio))
    allowed = jnp.arange(negatives.shape[0]) < ratio * jnp.sum(found)
    return chosen.at[negatives].max(exist & allowed)
