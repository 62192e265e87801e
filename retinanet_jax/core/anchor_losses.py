"""Computes the class and box loss of each anchor: masked, but not yet normalised or summed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core import box_coder, boxes
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.box_distribution import distribution_losses
from retinanet_jax.core.box_losses import box_losses
from retinanet_jax.core.box_outputs import BoxOutputs, join_levels
from retinanet_jax.core.centerness import centerness_losses
from retinanet_jax.core.focal import FocalParams, class_losses
from retinanet_jax.core.hard_examples import hardest
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.loss_normalizer import split_levels
from retinanet_jax.core.targets import IGNORE, Targets


class AnchorLosses(NamedTuple):
    """The losses of each anchor before normalising and summing, float32 [b n]."""

    class_loss: Float[Array, "b n"]
    """Class loss, summed over the classes; 0 for anchors that are ignored or not mined."""
    box_loss: Float[Array, "b n"]
    """Box loss without box_weight, including the losses of centre-ness and distributions if the
    network predicts them; 0 unless the anchor is positive and, with mining, chosen."""


def anchor_losses(
    class_logits: tuple[Float[ArrayLike, "b _ k"], ...],
    box_deltas: tuple[Float[ArrayLike, "b _ 4"] | BoxOutputs, ...],
    anchors: tuple[Float[ArrayLike, "_ 4"], ...],
    targets: Targets,
    valid: Bool[ArrayLike, "b"],
    config: LossConfig,
    *,
    focal: FocalParams | None = None,
    map_images: Callable[[Callable], Callable] = jax.vmap,
) -> AnchorLosses:
    """Returns the losses of each anchor of a batch; for the arguments, see `retinanet_loss`."""
    focal = config.focal if focal is None else focal
    sizes = tuple(len(level) for level in anchors)
    labels = labels_of_valid(targets, valid)
    quality = _quality(box_deltas, anchors, targets) if config.needs_quality else None
    name = config.classification
    of_classes = anchor_class_losses(class_logits, labels, quality, sizes, name, focal)
    of_boxes = anchor_box_losses(box_deltas, anchors, targets.boxes, labels, config)
    if config.needs_quality and targets.alignment is not None:
        of_boxes = targets.alignment * of_boxes
    if config.hard_examples is not None:
        combined = of_classes + config.box_weight * of_boxes
        chosen = hardest(combined, labels, jnp.concatenate(anchors), config, map_images)
        of_classes, of_boxes = jnp.where(chosen, of_classes, 0), jnp.where(chosen, of_boxes, 0)
    return AnchorLosses(of_classes, of_boxes)


def labels_of_valid(targets: Targets, valid: Bool[ArrayLike, "b"]) -> Int[Array, "b n"]:
    """Returns the labels of the targets, with IGNORE in images that are not valid."""
    return jnp.where(jnp.asarray(valid)[:, None], targets.labels, IGNORE)


def anchor_box_losses(
    box_deltas: tuple[Float[ArrayLike, "b _ 4"] | BoxOutputs, ...],
    anchors: tuple[Float[ArrayLike, "_ 4"], ...],
    target_boxes: Float[ArrayLike, "b n 4"],
    labels: Int[ArrayLike, "b n"],
    config: LossConfig,
) -> Float[Array, "b n"]:
    """Returns the box loss of each anchor, see AnchorLosses; 0 if its label is not a class."""
    outputs = join_levels(box_deltas)
    anchors = jnp.concatenate(anchors)
    every = box_losses(outputs.deltas, anchors, target_boxes, config.box, config.beta)
    if outputs.centerness is not None:
        every += centerness_losses(outputs.centerness, anchors, target_boxes)
    if outputs.distributions is not None:
        losses = distribution_losses(outputs.distributions, anchors, target_boxes)
        every += config.distribution_weight * losses
    return jnp.where(labels >= 0, every, 0)


def _quality(box_deltas, anchors, targets):
    """The alignment, else the IoU of predicted and matched boxes [b n]; without gradient."""
    if targets.alignment is not None:
        return targets.alignment
    deltas = jax.lax.stop_gradient(join_levels(box_deltas).deltas)
    return boxes.iou(box_coder.decode(jnp.concatenate(anchors), deltas), targets.boxes)


def anchor_class_losses(
    class_logits: tuple[Float[ArrayLike, "b _ k"], ...],
    labels: Int[ArrayLike, "b n"],
    quality: Float[ArrayLike, "b n"] | None,
    sizes: tuple[int, ...],
    name: str,
    focal: FocalParams,
) -> Float[Array, "b n"]:
    """Returns the class loss of each anchor, summed over the classes.

    It is computed per level: concatenated logits would be a copy of the step's largest array.
    """
    qualities = [None] * len(sizes) if quality is None else split_levels(quality, sizes)
    levels = zip(class_logits, split_levels(labels, sizes), qualities, strict=True)
    return jnp.concatenate(
        [class_losses(logits, part, name, focal, quality) for logits, part, quality in levels],
        axis=1,
    )
