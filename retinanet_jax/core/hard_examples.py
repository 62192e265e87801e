"""Online hard example mining: training on the anchors of the highest loss alone.

Shrivastava et al. 2016 (arXiv 1604.03540): score each example by its loss, suppress by NMS those
beside a harder one, keep the hardest. RetinaNet's paper (section 5.1) sets it against focal loss.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import IGNORE
from retinanet_jax.core.nms import nms

ArrayLike = Array | np.ndarray


def hardest(
    losses: Float[ArrayLike, "b n"],
    labels: Int[ArrayLike, "b n"],
    anchors: Float[ArrayLike, "n 4"],
    config: LossConfig,
) -> Bool[Array, "b n"]:
    """The anchors of each image to train on; no gradient flows through the choice.

    With a quota, positives and negatives are suppressed and chosen each among themselves: of
    hard_examples places, one in 1 + negatives_per_positive is for positives, and for each positive
    found there are so many negatives; an image without positives has none of either.

    Args:
      losses: by which an anchor is hard.
      labels: class index, NEGATIVE or IGNORE; the ignored are never chosen.
      anchors: xyxy pixels: NMS is between anchors, since only they tell which examples are beside
        each other when nothing has been learned yet.
      config: hard_examples, hard_examples_iou and negatives_per_positive.
    """
    losses = jax.lax.stop_gradient(jnp.asarray(losses))
    choose = functools.partial(_hardest_of_image, anchors=anchors, config=config)
    return jax.vmap(choose)(losses, jnp.asarray(labels))


def _hardest_of_image(losses, labels, anchors, config):
    def first(valid, count):
        """Indices [count] of the hardest, falling, and which of them there are."""
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
