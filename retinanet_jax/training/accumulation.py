"""Computes the gradients of a batch in several parts, with the memory of one part."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from retinanet_jax.core.loss import Losses


def accumulate_gradients(
    loss_fn: Callable, params: Any, running: Any, examples: Any, parts: int
) -> tuple[Losses, Any, Any]:
    """Losses, running values and gradients of a batch, computed in `parts` equal parts.

    Each part is divided by the divisors of the whole batch, so the losses and gradients of the
    parts add up to those of the batch. Only live batch norm differs: it sees one part at a time.

    Args:
        loss_fn: function from (params, running, *part of examples) to (loss, (Losses, running)).
        params: parameters of the model.
        running: statistics that each part updates.
        examples: a tuple of trees of arrays with the images of the batch along the first axis.
        parts: number of parts; it must divide the number of images.
    """
    gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
    if parts == 1:
        (_, (losses, running)), gradients = gradient_fn(params, running, *examples)
        return losses, running, gradients

    def add_part(carry, part):
        sums, running, total = carry
        (_, (losses, running)), gradients = gradient_fn(params, running, *part)
        sums, total = jax.tree.map(jnp.add, (sums, total), (gradients, losses))
        return (sums, running, total), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    no_loss = Losses(*(jnp.zeros(()) for _ in Losses._fields))
    carry, _ = jax.lax.scan(add_part, (zeros, running, no_loss), split_into_parts(examples, parts))
    gradients, running, losses = carry
    return losses, running, gradients


def split_into_parts(tree: Any, parts: int) -> Any:
    """Arrays [b ...] as [parts b/parts ...].

    Each part has every parts-th image, so it is spread over the devices like the batch.
    """
    return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), tree)
