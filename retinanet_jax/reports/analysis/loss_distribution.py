"""The focal loss over easy and hard examples: figures 1 and 4 of the RetinaNet paper.

Paper: arXiv 1708.02002, section 5.1, "Analysis of the Focal Loss": the cumulative distributions of
the losses of positives and of negatives, sorted and normalized to sum to one. An example is one
binary decision with its p_t: a positive anchor's decision on its own class, a background anchor's
on each class. alpha is a constant factor for each kind of example and cancels.

The loss falls as the logit x_t (x of a positive, -x of a negative) rises, for every gamma. A fine
histogram of x_t therefore gives the distribution for any gamma, without sampling. A bin is 1/64
wide: within it the loss differs from that of its middle by less than 1% x (1 + gamma).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.focal import focal_loss
from retinanet_jax.core.loss_normalizer import split_levels
from retinanet_jax.core.targets import NEGATIVE

LIMIT = 32  # logits are clipped to +-LIMIT, where p_t is 1 - 1e-14
BINS_PER_UNIT = 64
BINS = 2 * LIMIT * BINS_PER_UNIT
KINDS = ("positive", "negative")


def count_logits(
    class_logits: Sequence[Float[ArrayLike, "b _ k"]], labels: Int[ArrayLike, "b n"]
) -> Int[Array, "2 4096"]:
    """Histograms of x_t over the positive and the negative examples of a batch. Jittable.

    Args:
      class_logits: per level.
      labels: class index, NEGATIVE or IGNORE, for the anchors of all levels in order.
    """
    parts = split_levels(labels, tuple(logits.shape[1] for logits in class_logits))
    return sum(_count_level(*pair) for pair in zip(class_logits, parts, strict=True))


def _count_level(logits, labels):
    logits, labels = jnp.asarray(logits, jnp.float32), labels[..., None]
    own = labels == jnp.arange(logits.shape[-1])
    signed = jnp.where(own, logits, -logits)
    place = jnp.clip(jnp.floor((signed + LIMIT) * BINS_PER_UNIT), 0, BINS - 1).astype(jnp.int32)
    # Decisions that are no examples go to a third row, which is dropped.
    row = jnp.where(own, 0, jnp.where(labels == NEGATIVE, 1, 2))
    counts = jnp.zeros((3 * BINS,), jnp.int32).at[row * BINS + place].add(1)
    return counts.reshape(3, BINS)[:2]


def bin_losses(gamma: float | int) -> Float[np.ndarray, "4096"]:
    """The focal loss at the middle of each bin, falling."""
    middles = (np.arange(BINS) + 0.5) / BINS_PER_UNIT - LIMIT
    losses = jax.device_get(focal_loss(middles, np.ones(BINS), gamma=gamma))
    return losses.astype(np.float64)


def cumulative_loss(
    counts: Int[np.ndarray, "4096"], gamma: float | int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Figure 4: shares of the examples, by rising loss, and their shares of the loss.

    Both begin at 0 and end at 1. Empty if there are no examples.
    """
    # x_t rises over the bins: the easiest examples are in the last ones.
    filled = np.flatnonzero(counts)[::-1]
    if not len(filled):
        return np.zeros(0), np.zeros(0)
    number = np.cumsum(counts[filled].astype(np.float64))
    loss = np.cumsum(counts[filled] * bin_losses(gamma)[filled])
    return np.append(0, number / number[-1]), np.append(0, loss / loss[-1])


def hardest_share(counts: Int[np.ndarray, "4096"], gamma: float | int, share: float) -> float:
    """The share of the loss from the `share` of the examples with the highest losses.

    NaN if there are no examples.
    """
    examples, loss = cumulative_loss(counts, gamma)
    return float(1 - np.interp(1 - share, examples, loss)) if len(examples) else float("nan")
