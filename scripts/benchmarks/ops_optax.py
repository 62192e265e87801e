"""Contestant of loss.py: optax's focal loss on one-hot targets, with ignored anchors masked."""

import sys

import jax
import jax.numpy as jnp
import optax

from benchmarks import inputs
from benchmarks.contestants import serve
from benchmarks.ops_ours import measured


def total(logits, labels, gamma, alpha):
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    losses = optax.losses.sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    return jnp.sum(jnp.where((labels == inputs.IGNORE)[:, None], 0, losses))


if __name__ == "__main__":
    logits, labels = map(jax.device_put, inputs.loss_inputs(*map(int, sys.argv[2:])))
    work = measured(jax.value_and_grad(total), logits, labels, 2.0, 0.25)
    serve(lambda: work() | {"name": f"optax {optax.__version__}"})
