"""The losses of each anchor, which nothing has been divided by or summed over yet."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from retinanet_jax.core import boxes
from retinanet_jax.core.box_losses import box_losses
from retinanet_jax.core.focal import Focusing, class_losses
from retinanet_jax.core.hard_examples import hardest
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import IGNORE, Targets

ArrayLike = Array | np.ndarray
Scalar = float | int | np.number | Float[ArrayLike, ""]


class AnchorLosses(NamedTuple):
    """Losses of each anchor, before they are summed and normalised; float32."""

    class_loss: Float[Array, "b n"]
    """Over all classes; 0 where the anchor is not counted."""
    box_loss: Float[Array, "b n"]
    """Without box_weight; 0 where the anchor is not positive or not counted."""


def anchor_losses(
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
) -> AnchorLosses:
    """What each anchor adds to the loss of a batch; arguments as those of `retinanet_loss`."""
    focusing = Focusing(
        config.gamma if gamma is None else gamma,
        config.alpha if alpha is None else alpha,
        config.star_beta if star_beta is None else star_beta,
    )
    sizes = tuple(len(level) for level in anchors)
    anchors = jnp.concatenate(anchors)
    deltas = jnp.concatenate(box_deltas, axis=1, dtype=jnp.float32)
    labels = jnp.where(jnp.asarray(valid)[:, None], targets.labels, IGNORE)
    quality = _quality(deltas, anchors, targets.boxes) if config.needs_quality else None
    of_classes = _class_losses(class_logits, labels, quality, sizes, config, focusing)
    of_boxes = box_losses(deltas, anchors, targets.boxes, config.box, config.beta)
    of_boxes = jnp.where(labels >= 0, of_boxes, 0)
    if config.hard_examples is not None:
        chosen = hardest(of_classes + config.box_weight * of_boxes, labels, anchors, config)
        of_classes, of_boxes = jnp.where(chosen, of_classes, 0), jnp.where(chosen, of_boxes, 0)
    return AnchorLosses(of_classes, of_boxes)


def _quality(deltas, anchors, target_boxes):
    """IoU of the predicted boxes with the matched ones [b n]: a target, so without gradient."""
    return boxes.iou(boxes.decode(anchors, jax.lax.stop_gradient(deltas)), target_boxes)


def _class_losses(class_logits, labels, quality, sizes, config, focusing):
    """Class loss of every anchor: [b n].

    Level by level, since joined logits would be a second copy of the largest array of the step.
    """
    qualities = [None] * len(sizes) if quality is None else split_levels(quality, sizes)
    levels = zip(class_logits, split_levels(labels, sizes), qualities, strict=True)
    return jnp.concatenate(
        [
            class_losses(logits, part, config.classification, focusing, quality)
            for logits, part, quality in levels
        ],
        axis=1,
    )


def split_levels(array: ArrayLike, sizes: tuple[int, ...]) -> list[Array]:
    """The levels' parts of an array over all anchors [b n]."""
    return jnp.split(array, np.cumsum(sizes)[:-1], axis=1)
