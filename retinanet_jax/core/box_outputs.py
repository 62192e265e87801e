"""The outputs of the box head for an anchor: the deltas of its box, and with some configs more."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from retinanet_jax.core.arrays import ArrayLike


class BoxOutputs(NamedTuple):
    """The outputs of a box head that predicts more than the deltas."""

    deltas: Float[ArrayLike, "*b 4"]
    """Deltas (dx, dy, dw, dh)."""
    centerness: Float[ArrayLike, "*b"] | None = None
    """Logit of the centre-ness; None for a network without model.centerness."""
    distributions: Float[ArrayLike, "*b 4 bins"] | None = None
    """Logits of the distances of the four sides; None for a network without model.box_bins."""


def named(outputs: Float[ArrayLike, "*b 4"] | BoxOutputs) -> BoxOutputs:
    """Returns BoxOutputs, also for a head that returns only the deltas."""
    return outputs if isinstance(outputs, BoxOutputs) else BoxOutputs(outputs)


def join_levels(
    levels: Sequence[Float[ArrayLike, "... 4"] | BoxOutputs], axis: int = 1
) -> BoxOutputs:
    """Joins the outputs of all levels in order, as float32; `axis` is that of the anchors."""

    def join(*parts: ArrayLike) -> Array:
        return jnp.concatenate(parts, axis=axis, dtype=jnp.float32)

    return jax.tree.map(join, *map(named, levels))
