"""The losses: focal loss for classes, smooth L1 or generalized IoU for boxes, and their sum.

RetinaNet paper (arXiv 1708.02002): equation 5 is the focal loss, section 3.3 the class imbalance at
the start, section 4 ("Inference and Training") its sum over all anchors, divided by the number of
positives. The elementwise losses are unreduced; `retinanet_loss` alone masks, normalises and sums.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from retinanet_jax import boxes
from retinanet_jax.matching import IGNORE, Targets

ArrayLike = Array | np.ndarray
Scalar = float | int | np.number | Float[ArrayLike, ""]

BOX_LOSSES = ("smooth_l1", "l1", "giou")
NORMALIZERS = ("batch", "image")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Which losses, their parameters and how they are summed.

    Raises:
      ValueError: for a field without meaning; the message names the field and what to write.
    """

    gamma: float | int = 2.0
    """Focusing parameter; 0 is cross entropy. Paper: 2."""
    alpha: float | int | None = 0.25
    """Weight of positives; negatives have 1 - alpha. None: no weighting. Paper: 0.25 at gamma 2."""
    box: str = "smooth_l1"
    """smooth_l1 or l1 of the encoded deltas, giou of the decoded boxes (torchvision v2)."""
    beta: float | int = 1 / 9
    """Where smooth L1 turns from a parabola into a line, in units of the deltas (keras-retinanet;
    Detectron 1 has 0.11)."""
    box_weight: float | int = 1.0
    """Factor of the box loss within the total."""
    normalizer: str = "batch"
    """batch: by the positives of the whole batch over all devices, at least 1 (the paper); image:
    by those of each image, at least 1, then the mean over the images (torchvision)."""

    def __post_init__(self):
        for name in ("gamma", "beta", "box_weight"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"loss.{name}: {value} is not a finite number of at least 0")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError(f"loss.alpha: {self.alpha} is not in [0, 1]; None is off")
        for name, known in (("box", BOX_LOSSES), ("normalizer", NORMALIZERS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"loss.{name}: {getattr(self, name)!r} is not one of {', '.join(known)}"
                )


class Losses(NamedTuple):
    """Scalars in float32."""

    total: Float[Array, ""]
    """class_loss + box_weight * box_loss: what is minimised."""
    class_loss: Float[Array, ""]
    """Focal loss, normalised."""
    box_loss: Float[Array, ""]
    """Box loss, normalised, without box_weight."""
    num_positives: Float[Array, ""]
    """Positive anchors of the whole batch (0 if there are none)."""


def sigmoid_focal_loss(
    logits: Float[ArrayLike, "*#b"],
    targets: Num[ArrayLike, "*#b"] | Bool[ArrayLike, "*#b"],
    *,
    gamma: Scalar,
    alpha: Scalar | None = None,
) -> Float[Array, "*b"]:
    """Focal loss of independent binary decisions, equation 5 of the paper.

        FL = -alpha_t (1 - p_t)^gamma log(p_t),   p_t = sigmoid(x_t),   x_t = x if target else -x

    Computed from logits alone. With s(z) = log(1 + exp(z)), log(p_t) is -s(-x_t) and log(1 - p_t)
    is -s(x_t), so that FL = alpha_t exp(-gamma s(x_t)) s(-x_t). No power of a number that may be 0
    is taken, hence values and gradients are finite for every finite logit and every gamma,
    fractions too.

    Args:
      logits: before the sigmoid, any float type; computed in float32.
      targets: 0 or 1 (or bool), broadcasting against the logits.
      gamma: focusing parameter >= 0; may be traced. 0 is cross entropy exactly.
      alpha: weight of the targets 1, 1 - alpha that of the targets 0; may be traced. None weighs
        nothing.

    Returns:
      The loss of every element, float32, unreduced.
    """
    logits = jnp.asarray(logits, jnp.float32)
    positive = jnp.asarray(targets) > 0.5
    signed = jnp.where(positive, logits, -logits)
    # s(z) = max(z, 0) + log(1 + exp(-|z|)): one exponential and one logarithm serve both signs.
    # The minimum is -|z| with derivative 0 at 0, where jnp.abs has 1, so that s has its slope 1/2.
    tail = jnp.log1p(jnp.exp(jnp.minimum(signed, -signed)))
    cross_entropy = jnp.maximum(-signed, 0) + tail
    if alpha is not None:
        # Weighed here rather than after the product, which XLA's CPU backend fuses into the sum
        # over the classes only with the weights in memory, as large as the logits.
        cross_entropy = jnp.where(positive, alpha, 1 - alpha) * cross_entropy
    return jnp.exp(-gamma * (jnp.maximum(signed, 0) + tail)) * cross_entropy


def focal_loss_from_labels(
    logits: Float[ArrayLike, "*b k"],
    labels: Int[ArrayLike, "*b"],
    *,
    gamma: Scalar,
    alpha: Scalar | None = None,
) -> Float[Array, "*b"]:
    """Focal loss of anchors: summed over the classes, not averaged.

    Args:
      logits: one per class and anchor, any float type.
      labels: class index, NEGATIVE (background in all classes) or IGNORE.
      gamma: focusing parameter >= 0; may be traced.
      alpha: weight of positives; may be traced. None weighs nothing.

    Returns:
      The loss of every anchor, float32; 0 for IGNORE.
    """
    labels = jnp.asarray(labels)
    # A comparison with an iota, which XLA fuses: one-hot targets are never in memory.
    targets = labels[..., None] == jnp.arange(logits.shape[-1])
    losses = sigmoid_focal_loss(logits, targets, gamma=gamma, alpha=alpha)
    return jnp.where(labels == IGNORE, 0, jnp.sum(losses, axis=-1))


def smooth_l1(
    pred: Float[ArrayLike, "*#b"], target: Float[ArrayLike, "*#b"], beta: Scalar
) -> Float[Array, "*b"]:
    """Smooth L1: d^2 / (2 beta) where d = |pred - target| < beta, else d - beta / 2.

    Fast R-CNN (arXiv 1504.08083), equation 3, with the beta of Detectron.

    Args:
      pred: predictions.
      target: what they should be.
      beta: where the parabola ends, in their unit; 0 is L1.

    Returns:
      The loss of every element, unreduced.
    """
    difference = jnp.asarray(pred) - target
    # |d| with derivative 0 at 0, as torch has it; that of jnp.abs is 1.
    distance = jnp.maximum(difference, -difference)
    parabola = 0.5 * distance**2 / jnp.where(beta > 0, beta, 1)
    return jnp.where(distance < beta, parabola, distance - 0.5 * beta)


def giou_loss(
    pred_boxes: Float[ArrayLike, "*b 4"], target_boxes: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """1 - generalized IoU of corresponding boxes (arXiv 1902.09630, algorithm 1).

    Args:
      pred_boxes: xyxy pixels.
      target_boxes: xyxy pixels.

    Returns:
      Values in [0, 2], 0 for equal boxes.
    """
    return 1 - boxes.generalized_iou(pred_boxes, target_boxes)


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
) -> Losses:
    """The loss of a batch: focal loss of all anchors plus box loss of the positive ones.

    Anchors of state IGNORE and images that are not valid add nothing. Under jit over a mesh the
    arrays are those of the whole batch, so that the result does not depend on the number of
    devices.

    Args:
      class_logits: per level, [b n_l k], any float type.
      box_deltas: per level, [b n_l 4], any float type.
      anchors: per level, [n_l 4], xyxy pixels.
      targets: labels [b n] and boxes [b n 4] over the anchors of all levels in order.
      valid: [b], False for the images that fill up the last batch.
      config: losses and normaliser.
      gamma: in place of config.gamma; may be traced, so that a sweep compiles once.
      alpha: in place of config.alpha; may be traced.

    Returns:
      Losses. Without positive anchors the class loss is that of the negatives, the box loss 0.
    """
    gamma = config.gamma if gamma is None else gamma
    alpha = config.alpha if alpha is None else alpha
    labels = jnp.where(jnp.asarray(valid)[:, None], targets.labels, IGNORE)
    positive = labels >= 0
    class_sums = _class_loss_sums(class_logits, labels, gamma, alpha)
    deltas = jnp.concatenate(box_deltas, axis=1, dtype=jnp.float32)
    box_losses = _box_losses(deltas, jnp.concatenate(anchors), targets.boxes, config)
    box_sums = jnp.sum(jnp.where(positive, box_losses, 0), axis=1)
    positives = jnp.sum(positive, axis=1, dtype=jnp.float32)
    class_loss = jnp.sum(_normalize(class_sums, positives, valid, config))
    box_loss = jnp.sum(_normalize(box_sums, positives, valid, config))
    total = class_loss + config.box_weight * box_loss
    return Losses(total, class_loss, box_loss, jnp.sum(positives))


class LossParts(NamedTuple):
    """What each pyramid level and image adds to the loss of a batch; float32."""

    class_loss: Float[Array, "l b"]
    """Its sum is Losses.class_loss."""
    box_loss: Float[Array, "l b"]
    """Its sum is Losses.box_loss."""
    num_positives: Float[Array, "l b"]
    """Positive anchors."""


def loss_parts(
    class_logits: tuple[Float[ArrayLike, "b _ k"], ...],
    box_deltas: tuple[Float[ArrayLike, "b _ 4"], ...],
    anchors: tuple[Float[ArrayLike, "_ 4"], ...],
    targets: Targets,
    valid: Bool[ArrayLike, "b"],
    config: LossConfig,
) -> LossParts:
    """The loss of a batch taken apart, for a report; arguments as those of retinanet_loss."""
    labels = jnp.where(jnp.asarray(valid)[:, None], targets.labels, IGNORE)
    positives = jnp.sum(labels >= 0, axis=1, dtype=jnp.float32)
    deltas = jnp.concatenate(box_deltas, axis=1, dtype=jnp.float32)
    box_losses = _box_losses(deltas, jnp.concatenate(anchors), targets.boxes, config)
    levels = np.repeat(np.arange(len(anchors)), [len(level) for level in anchors])
    parts = []
    for level in range(len(anchors)):
        own = jnp.where(levels == level, labels, IGNORE)
        class_sums = _class_loss_sums(class_logits, own, config.gamma, config.alpha)
        box_sums = jnp.sum(jnp.where(own >= 0, box_losses, 0), axis=1)
        sums = (_normalize(sums, positives, valid, config) for sums in (class_sums, box_sums))
        parts.append((*sums, jnp.sum(own >= 0, axis=1, dtype=jnp.float32)))
    return LossParts(*map(jnp.stack, zip(*parts, strict=True)))


def _class_loss_sums(class_logits, labels, gamma, alpha):
    """Focal loss of every image: [b].

    Level by level, since joined logits would be a second copy of the largest array of the step.
    """
    ends = np.cumsum([logits.shape[1] for logits in class_logits])
    parts = jnp.split(labels, ends[:-1], axis=1)
    return sum(
        jnp.sum(focal_loss_from_labels(logits, part, gamma=gamma, alpha=alpha), axis=1)
        for logits, part in zip(class_logits, parts, strict=True)
    )


def _box_losses(deltas, anchors, target_boxes, config):
    """Box loss of every anchor as if all were positive: [b n]."""
    if config.box == "giou":
        return giou_loss(boxes.decode(anchors, deltas), target_boxes)
    beta = config.beta if config.box == "smooth_l1" else 0.0
    return jnp.sum(smooth_l1(deltas, boxes.encode(anchors, target_boxes), beta), axis=-1)


def _normalize(sums, positives, valid, config):
    """What each image [b] adds to the loss, from its sums [b]."""
    if config.normalizer == "batch":
        return sums / jnp.maximum(jnp.sum(positives), 1)
    return sums / jnp.maximum(positives, 1) / jnp.maximum(jnp.sum(valid), 1)
