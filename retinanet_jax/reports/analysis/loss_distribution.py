"""How the focal loss is spread over easy and hard examples: figures 1 and 4 of the paper.

RetinaNet paper (arXiv 1708.02002), section 5.1, "Analysis of the Focal Loss": losses of positives
and of negatives, each normalised to sum to one and sorted, as cumulative distributions. An example
is a binary decision with its p_t: of a positive anchor that on its own class, of a background
anchor that on every class. alpha weighs all examples of a kind alike and does not show.

The loss falls as the logit x_t (x of a positive, -x of a negative) rises, at every gamma. A fine
histogram of x_t is hence all that is needed, for any gamma and without a sample: bins are 1/64
wide, within which the loss of an example differs from that of the middle by less than 1% x
(1 + gamma), both ways.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from retinanet_jax.core.focal import focal_loss
from retinanet_jax.core.matching import NEGATIVE

ArrayLike = Array | np.ndarray

LIMIT = 32  # logits beyond count as this; p_t is 1 - 1e-14 there
BINS_PER_UNIT = 64
BINS = 2 * LIMIT * BINS_PER_UNIT
KINDS = ("positive", "negative")


def count_logits(
    class_logits: Sequence[Float[ArrayLike, "b _ k"]], labels: Int[ArrayLike, "b n"]
) -> Int[Array, "2 4096"]:
    """Histograms of x_t over the positive and the negative decisions of a batch; jittable.

    Args:
      class_logits: per level.
      labels: over the anchors of all levels in order: class index, NEGATIVE or IGNORE.
    """
    ends = np.cumsum([logits.shape[1] for logits in class_logits])
    parts = jnp.split(labels, ends[:-1], axis=1)
    return sum(_count_level(*pair) for pair in zip(class_logits, parts, strict=True))


def _count_level(logits, labels):
    logits, labels = jnp.asarray(logits, jnp.float32), labels[..., None]
    own = labels == jnp.arange(logits.shape[-1])
    signed = jnp.where(own, logits, -logits)
    place = jnp.clip(jnp.floor((signed + LIMIT) * BINS_PER_UNIT), 0, BINS - 1).astype(jnp.int32)
    # What is no example goes to a row that is dropped.
    row = jnp.where(own, 0, jnp.where(labels == NEGATIVE, 1, 2))
    counts = jnp.zeros((3 * BINS,), jnp.int32).at[row * BINS + place].add(1)
    return counts.reshape(3, BINS)[:2]


def bin_losses(gamma: float | int) -> Float[np.ndarray, "4096"]:
    """The focal loss in the middle of every bin, falling."""
    middles = (np.arange(BINS) + 0.5) / BINS_PER_UNIT - LIMIT
    losses = jax.device_get(focal_loss(middles, np.ones(BINS), gamma=gamma))
    return losses.astype(np.float64)


def cumulative_loss(
    counts: Int[np.ndarray, "4096"], gamma: float | int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Figure 4: the share of the loss (second) that a share of the examples (first) has.

    Examples are sorted by rising loss; both begin at 0 and end at 1. Empty where there are none.
    """
    # Bins rise with x_t: the easiest are last.
    there = np.flatnonzero(counts)[::-1]
    if not len(there):
        return np.zeros(0), np.zeros(0)
    number = np.cumsum(counts[there].astype(np.float64))
    loss = np.cumsum(counts[there] * bin_losses(gamma)[there])
    return np.append(0, number / number[-1]), np.append(0, loss / loss[-1])


def hardest_share(counts: Int[np.ndarray, "4096"], gamma: float | int, share: float) -> float:
    """The share of the loss that comes from the `share` of the examples with the highest losses.

    NaN where there are no examples.
    """
    examples, loss = cumulative_loss(counts, gamma)
    return float(1 - np.interp(1 - share, examples, loss)) if len(examples) else float("nan")
