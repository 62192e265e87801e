"""The outputs of the box head for an anchor, along one axis: `Predictions.box_deltas`."""

from typing import NamedTuple

from jaxtyping import Float

from retinanet_jax.core.arrays import ArrayLike


class BoxOutputs(NamedTuple):
    """The parts of the box head's outputs, in the order of their channels."""

    deltas: Float[ArrayLike, "*b 4"]
    """Deltas (dx, dy, dw, dh)."""
    centerness: Float[ArrayLike, "*b"] | None
    """Logit of the centre-ness; None for a network without model.centerness."""
    distributions: Float[ArrayLike, "*b 4 bins"] | None
    """Logits of the distances of the four sides; None for a network without model.box_bins."""


def split_outputs(values: Float[ArrayLike, "*b v"]) -> BoxOutputs:
    """Splits the outputs into their parts: 4, then 1 or none, then 4 * bins or none."""
    rated = values.shape[-1] % 4
    rest = values[..., 4 + rated :]
    return BoxOutputs(
        values[..., :4],
        values[..., 4] if rated else None,
        rest.reshape(*rest.shape[:-1], 4, -1) if rest.shape[-1] else None,
    )
