"""Computes the class loss of a batch and its gradient, in the best layout for each platform.

The class logits are the largest array of a training step. The head computes them as [b h w a*k] and
returns [b n k]. On CPUs and GPUs, both have the same bytes, and the loss is computed as [b n k]. A
TPU stores arrays in tiles of 8 x 128 numbers, so each change between the two is a copy. There, the
loss is computed as [b h w a*k], with one int8 per logit for the labels, if it is elementwise.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from retinanet_jax.core.anchor_losses import anchor_class_losses
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.differentiation import needs_any_derivative
from retinanet_jax.core.focal import CLASS_LOSSES, FocalParams
from retinanet_jax.core.loss_normalizer import normalized_sum, split_levels
from retinanet_jax.core.targets import IGNORE

_NEGATIVE, _POSITIVE, _IGNORED = 0, 1, 2

_DIGIT = 256
"""bfloat16 represents every whole number below this, and its multiples up to 65,280, exactly."""


def total_class_loss(
    class_logits: tuple[Float[ArrayLike, "b _ k"], ...],
    labels: Int[ArrayLike, "b n"],
    divisor: Float[ArrayLike, "b _"],
    grids: tuple[tuple[int, int], ...],
    name: str,
    focal: FocalParams,
) -> Float[Array, ""]:
    """Returns the sum of the class losses of all anchors, divided by image and level.

    It is differentiable with respect to class_logits and focal. Outside of `any_derivative()`, it
    supports only reverse mode (`jax.custom_vjp`). The gradient is computed together with the value,
    so the logits are read once.

    Args:
      class_logits: logits per level, with anchors in the order H, W, A.
      labels: class index of each anchor, NEGATIVE or IGNORE.
      divisor: divisors from `divisors`.
      grids: (height, width) of the grid of locations of each level, from `feature_shapes`.
      name: a key of CLASS_LOSSES whose loss has the targets 0 and 1.
      focal: parameters of the loss.
    """
    in_lanes = loss_in_lanes if CLASS_LOSSES[name].elementwise else loss_by_anchor
    layouts = tuple(functools.partial(f, grids, name) for f in (in_lanes, loss_by_anchor))
    differentiable = tuple(map(jnp.asarray, class_logits)), jax.tree.map(jnp.float32, focal)
    fixed = jnp.asarray(labels), jnp.asarray(divisor)
    if needs_any_derivative():
        return loss_by_anchor(grids, name, differentiable, fixed)
    return _total(layouts, differentiable, fixed)


# `jax.lax.platform_dependent` is not differentiated: it would save what any platform needs.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _total(layouts, differentiable, fixed):
    in_lanes, by_anchor = layouts
    return jax.lax.platform_dependent(differentiable, fixed, tpu=in_lanes, default=by_anchor)


def _forward(layouts, differentiable, fixed):
    in_lanes, by_anchor = layouts
    # A GPU would store a factor of each logit between value and gradient, as many bytes again as
    # the logits; computing it twice takes less time. A CPU needs longer for that.
    return jax.lax.platform_dependent(
        differentiable,
        fixed,
        cpu=jax.value_and_grad(by_anchor),
        tpu=jax.value_and_grad(in_lanes),
        default=jax.value_and_grad(jax.checkpoint(by_anchor)),
    )


def _backward(layouts, gradients, cotangent):
    return jax.tree.map(lambda g: (cotangent * g).astype(g.dtype), gradients), None


_total.defvjp(_forward, _backward)


def loss_by_anchor(grids, name, differentiable, fixed):
    """Computes the loss of logits [b n k]; takes the arguments of `loss_in_lanes`."""
    class_logits, focal = differentiable
    labels, divisor = fixed
    sizes = tuple(logits.shape[1] for logits in class_logits)
    losses = anchor_class_losses(class_logits, labels, None, sizes, name, focal)
    return normalized_sum(losses, sizes, divisor)


def loss_in_lanes(grids, name, differentiable, fixed):
    """Computes the loss of logits [b h w a*k].

    Args:
      grids: see `total_class_loss`.
      name: see `total_class_loss`.
      differentiable: (class_logits, focal).
      fixed: (labels, divisor).
    """
    class_logits, focal = differentiable
    labels, divisor = fixed
    labels = split_levels(labels, tuple(logits.shape[1] for logits in class_logits))
    levels = (
        _level_in_lanes(*level, CLASS_LOSSES[name].of_each, focal)
        for level in zip(class_logits, labels, grids, strict=True)
    )
    return jnp.sum(jnp.stack(list(levels), axis=1) / divisor)


def _level_in_lanes(logits, labels, grid, of_each, focal):
    """The class loss of one level, summed for each image."""
    num_classes = logits.shape[-1]
    shape = logits.shape[0], *grid, -1
    states = _states(labels, shape, num_classes)
    # Without this choice XLA negates the logits beside the convolution and stores both.
    logits = jnp.where(states == _IGNORED, 0, logits.reshape(shape))
    losses = of_each(logits, states == _POSITIVE, focal)
    losses = jnp.where(states == _IGNORED, 0, losses)
    return jnp.sum(jnp.sum(losses, axis=3), axis=(1, 2))


def _states(labels, shape, num_classes):
    """The state of each logit [b h w a*k]: _POSITIVE, _NEGATIVE or _IGNORED, int8.

    The label of an anchor is copied to its k logits by a product with zeros and ones, which a TPU
    fuses with the comparison.
    """
    # Images beside channels, as in the convolutions of a TPU for eight or more images.
    digits = [x.reshape(shape).transpose(1, 2, 0, 3) for x in _digits(labels, num_classes)]
    copies = np.repeat(np.eye(digits[0].shape[-1]), num_classes, axis=1)
    copied = jnp.dot(
        jnp.concatenate(digits, axis=-1),
        jnp.asarray(np.tile(copies, (len(digits), 1)), jnp.bfloat16),
        preferred_element_type=jnp.float32,
    )
    classes = np.tile(np.arange(num_classes, dtype=np.float32), digits[0].shape[-1])
    states = jnp.where(
        copied == IGNORE, _IGNORED, jnp.where(copied == classes, _POSITIVE, _NEGATIVE)
    )
    # The barrier makes the compiler store the states as int8, not the copied labels as float32.
    return jax.lax.optimization_barrier(states.astype(jnp.int8)).transpose(2, 0, 1, 3)


def _digits(labels, num_classes):
    """Arrays in bfloat16 whose sum is the labels; each is exact."""
    if num_classes <= _DIGIT:
        return [labels.astype(jnp.bfloat16)]
    high = jnp.maximum(labels, 0) // _DIGIT * _DIGIT
    return [(labels - high).astype(jnp.bfloat16), high.astype(jnp.bfloat16)]
