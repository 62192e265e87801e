"""Class losses, unreduced: focal loss, FL*, quality focal loss and varifocal loss.

Each class of each anchor is an independent binary decision. Focal loss and FL* are defined in the
RetinaNet paper (arXiv 1708.02002), section 3 and appendix A. In the other two, the target of a
positive is the IoU of its predicted box. All losses are computed from logits, with finite values
and gradients for every finite logit.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from retinanet_jax.core.arrays import ArrayLike, Scalar
from retinanet_jax.core.targets import IGNORE

_TINY = 1e-30
"""A tiny number whose reciprocal, which occurs in gradients, is still a finite float32."""


def focal_loss(
    logits: Float[ArrayLike, "*#b"],
    targets: Num[ArrayLike, "*#b"] | Bool[ArrayLike, "*#b"],
    *,
    gamma: Scalar,
    alpha: Scalar | None = None,
) -> Float[Array, "*b"]:
    """Computes the focal loss of independent binary decisions, equation 5 of the paper.

        FL = -alpha_t (1 - p_t)^gamma log(p_t),   p_t = sigmoid(x_t),   x_t = x if target else -x

    With s(z) = log(1 + exp(z)), log(p_t) = -s(-x_t) and log(1 - p_t) = -s(x_t), so FL = alpha_t
    exp(-gamma s(x_t)) s(-x_t). This form has no power of a number that may be 0, so values and
    gradients are finite for every finite logit and every gamma, including fractional ones.

    Args:
      logits: before the sigmoid, any float type; computed in float32.
      targets: 0 or 1 (or bool), broadcasting against the logits.
      gamma: focusing parameter >= 0; may be traced. 0 is exactly cross entropy.
      alpha: weight of targets 1, while targets 0 have 1 - alpha; may be traced. None: no weights.

    Returns:
      The loss of every element, float32, unreduced.
    """
    logits = jnp.asarray(logits, jnp.float32)
    positive = jnp.asarray(targets) > 0.5
    signed = jnp.where(positive, logits, -logits)
    # s(z) = max(z, 0) + log(1 + exp(-|z|)): one exponential and one logarithm for both signs.
    tail = _tail(signed)
    cross_entropy = jnp.maximum(-signed, 0) + tail
    if alpha is not None:
        # Before the product: after it, XLA's CPU backend would store the weights, an array as
        # large as the logits.
        cross_entropy = jnp.where(positive, alpha, 1 - alpha) * cross_entropy
    return jnp.exp(-gamma * (jnp.maximum(signed, 0) + tail)) * cross_entropy


def focal_loss_star(
    logits: Float[ArrayLike, "*#b"],
    targets: Num[ArrayLike, "*#b"] | Bool[ArrayLike, "*#b"],
    *,
    gamma: Scalar,
    beta: Scalar,
    alpha: Scalar | None = None,
) -> Float[Array, "*b"]:
    """FL*, the alternative focal loss of the paper's appendix A, equation 8.

        FL* = -alpha_t log(p_t*) / gamma,   p_t* = sigmoid(gamma x_t + beta)

    Args:
      logits: before the sigmoid, any float type; computed in float32.
      targets: 0 or 1 (or bool), broadcasting against the logits.
      gamma: steepness > 0; may be traced. Paper: 2 and 4.
      beta: shift; may be traced. Paper: 1 and 0.
      alpha: weight of targets 1, as in `focal_loss`.

    Returns:
      The loss of every element, float32, unreduced. At gamma 1 and beta 0 it is cross entropy.
    """
    logits = jnp.asarray(logits, jnp.float32)
    positive = jnp.asarray(targets) > 0.5
    losses = _softplus(-(gamma * jnp.where(positive, logits, -logits) + beta)) / gamma
    if alpha is None:
        return losses
    # Both products inside the `where`: XLA would store a `where` of the weights, see above.
    return jnp.where(positive, alpha * losses, (1 - alpha) * losses)


def quality_focal_loss(
    logits: Float[ArrayLike, "*#b"], targets: Float[ArrayLike, "*#b"], *, gamma: Scalar
) -> Float[Array, "*b"]:
    """Quality focal loss: Li et al., "Generalized Focal Loss" (arXiv 2006.04388), equation 2.

        QFL = |y - p|^gamma (-y log(p) - (1 - y) log(1 - p)),   p = sigmoid(x)

    Args:
      logits: before the sigmoid, any float type; computed in float32.
      targets: y in [0, 1], the quality to predict; broadcasting against the logits.
      gamma: focusing parameter >= 0, the paper's beta (2); may be traced.

    Returns:
      The loss of every element, float32, unreduced. For y of 0 or 1 it equals the focal loss
      without alpha.
    """
    logits = jnp.asarray(logits, jnp.float32)
    # y - p without cancellation. The power is computed by a logarithm; at 0, value and derivative
    # are set to 0, their true values for every gamma above 1.
    distance = jnp.abs(targets * jax.nn.sigmoid(-logits) - (1 - targets) * jax.nn.sigmoid(logits))
    some = distance > _TINY
    power = jnp.exp(gamma * jnp.log(jnp.where(some, distance, 1)))
    modulation = jnp.where(some | (gamma == 0), power, 0)
    return modulation * _cross_entropy(logits, targets, _tail(logits))


def varifocal_loss(
    logits: Float[ArrayLike, "*#b"],
    targets: Float[ArrayLike, "*#b"],
    *,
    gamma: Scalar,
    alpha: Scalar | None = None,
) -> Float[Array, "*b"]:
    """Varifocal loss: Zhang et al., "VarifocalNet" (arXiv 2008.13367), equation 2.

        VFL = q (-q log(p) - (1 - q) log(1 - p))   where q > 0,   p = sigmoid(x)
              -alpha p^gamma log(1 - p)            where q = 0

    Args:
      logits: before the sigmoid, any float type; computed in float32.
      targets: q in [0, 1], the IoU of the predicted box with its object, 0 for other classes and
        background; broadcasting against the logits.
      gamma: focusing parameter >= 0 of the negatives (the paper's 2); may be traced.
      alpha: weight of the negatives (the paper's 0.75); may be traced. None is 1.

    Returns:
      The loss of every element, float32, unreduced.
    """
    logits = jnp.asarray(logits, jnp.float32)
    # One tail for both signs, as in `focal_loss`; the exponential is p^gamma.
    tail = _tail(logits)
    negative = jnp.exp(-gamma * (jnp.maximum(-logits, 0) + tail)) * (jnp.maximum(logits, 0) + tail)
    negative = negative if alpha is None else alpha * negative
    return jnp.where(targets > 0, targets * _cross_entropy(logits, targets, tail), negative)


def focal_loss_from_labels(
    logits: Float[ArrayLike, "*b k"],
    labels: Int[ArrayLike, "*b"],
    *,
    gamma: Scalar,
    alpha: Scalar | None = None,
) -> Float[Array, "*b"]:
    """Computes the focal loss of anchors, summed over the classes, not averaged.

    Args:
      logits: one per class and anchor, any float type.
      labels: class index, NEGATIVE (background in all classes) or IGNORE.
      gamma: focusing parameter >= 0; may be traced.
      alpha: weight of positives; may be traced. None: no weights.

    Returns:
      The loss of every anchor, float32; 0 for IGNORE.
    """
    return _over_classes(FOCAL, logits, labels, FocalParams(gamma, alpha))


class FocalParams(NamedTuple):
    """The parameters of class losses, see LossConfig. All may be traced, so sweeps compile once."""

    gamma: Scalar
    alpha: Scalar | None = None
    star_beta: Scalar = 0.0


class ClassLoss(NamedTuple):
    """A value of `loss.classification`."""

    of_each: Callable[..., Array]
    """Function (logits, targets, FocalParams) -> losses, float32, unreduced. The last axis has the
    classes, unless `elementwise`."""
    of_quality: bool = False
    """Whether the target of a positive is the IoU of its predicted box with its object, not 1."""
    elementwise: bool = False
    """Whether each value depends on its own logit and target alone: not on those of other classes,
    as in a softmax, nor on the class. A TPU then computes the loss without a copy of the logits,
    whose last axis has the classes of all anchors of a location."""


FOCAL = ClassLoss(lambda x, y, f: focal_loss(x, y, gamma=f.gamma, alpha=f.alpha), elementwise=True)
CLASS_LOSSES = {
    "focal": FOCAL,
    "cross_entropy": ClassLoss(
        lambda x, y, f: focal_loss(x, y, gamma=0.0, alpha=f.alpha), elementwise=True
    ),
    "focal_star": ClassLoss(
        lambda x, y, f: focal_loss_star(x, y, gamma=f.gamma, beta=f.star_beta, alpha=f.alpha),
        elementwise=True,
    ),
    "quality_focal": ClassLoss(
        lambda x, y, f: quality_focal_loss(x, y, gamma=f.gamma), of_quality=True
    ),
    "varifocal": ClassLoss(
        lambda x, y, f: varifocal_loss(x, y, gamma=f.gamma, alpha=f.alpha), of_quality=True
    ),
}


def class_losses(
    logits: Float[ArrayLike, "*b k"],
    labels: Int[ArrayLike, "*b"],
    name: str,
    focal: FocalParams,
    quality: Float[ArrayLike, "*b"] | None = None,
) -> Float[Array, "*b"]:
    """Computes one of CLASS_LOSSES, summed over the classes of each anchor.

    Args:
      logits: one per class and anchor, any float type.
      labels: class index, NEGATIVE (background in all classes) or IGNORE.
      name: name of the loss.
      focal: parameters of the loss.
      quality: IoU of the predicted box of each anchor with its object; needed if the loss is
        of_quality.

    Returns:
      The loss of every anchor, float32; 0 for IGNORE.
    """
    return _over_classes(CLASS_LOSSES[name], logits, labels, focal, quality)


def _over_classes(loss, logits, labels, focal, quality=None):
    """Sums a ClassLoss over the classes; the label's target is 1 or the quality."""
    labels = jnp.asarray(labels)
    # XLA fuses this comparison; no one-hot targets are stored.
    targets = labels[..., None] == jnp.arange(logits.shape[-1])
    if quality is not None:
        targets = jnp.where(targets, quality[..., None], 0)
    of_each = loss.of_each(logits, targets, focal)
    return jnp.where(labels == IGNORE, 0, jnp.sum(of_each, axis=-1))


def _softplus(x):
    """log(1 + exp(x))."""
    return jnp.maximum(x, 0) + _tail(x)


def _cross_entropy(logits, targets, tail):
    """-y log(p) - (1 - y) log(1 - p) for y in [0, 1], without cancellation; tail: of x."""
    wrong = targets * jnp.maximum(-logits, 0) + (1 - targets) * jnp.maximum(logits, 0)
    return wrong + tail


def _tail(x):
    """log(1 + exp(-|x|)); -|x| is a minimum with derivative 0 at 0, where that of jnp.abs is 1."""
    return jnp.log1p(jnp.exp(jnp.minimum(x, -x)))
