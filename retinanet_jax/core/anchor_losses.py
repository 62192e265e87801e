"""Class loss and box loss of each anchor: masked, not yet normalised and summed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from retinanet_jax.core import box_coder, boxes
from retinanet_jax.core.box_losses import box_losses
from retinanet_jax.core.focal import Focusing, class_losses
from retinanet_jax.core.hard_examples import hardest
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import IGNORE, Targets

ArrayLike = Array | np.ndarray
Scalar = float | int | np.number | Float[ArrayLike, ""]


class AnchorLosses(NamedTuple):
    """Losses of each anchor before normalising and summing; float32."""

    class_loss: Float[Array, "b n"]
    """Summed over the classes; 0 for ignored anchors and those that mining leaves out."""
    box_loss: Float[Array, "b n"]
    """Without box_weight; 0 unless the anchor is positive and, with mining, chosen."""


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
    map_images: Callable[[Callable], Callable] = jax.vmap,
) -> AnchorLosses:
    """The losses of each anchor of a batch; arguments as in `retinanet_loss`."""
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
        combined = of_classes + config.box_weight * of_boxes
        chosen = hardest(combined, labels, anchors, config, map_images)
        of_classes, of_boxes = jnp.where(chosen, of_classes, 0), jnp.where(chosen, of_boxes, 0)
    return AnchorLosses(of_classes, of_boxes)


def _quality(deltas, anchors, target_boxes):
    """IoU of predicted and matched boxes [b n], without gradient: it is a target."""
    return boxes.iou(box_coder.decode(anchors, jax.lax.stop_gradient(deltas)), target_boxes)


def _class_losses(class_logits, labels, quality, sizes, config, focusing):
    """Class loss of every anchor [b n].

    Computed per level: concatenated logits would be a copy of the largest array of the step.
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
    """Splits an array over all anchors [b n] by level."""
    return jnp.split(array, np.cumsum(sizes)[:-1], axis=1)
