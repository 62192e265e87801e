"""The training targets of the heads and the states of anchors."""

from typing import NamedTuple

from jaxtyping import Float, Int

from retinanet_jax.core.arrays import ArrayLike

NEGATIVE = -1
"""State of a background anchor, which is only in the class loss."""
IGNORE = -2
"""State of an anchor that is in no loss."""


class Targets(NamedTuple):
    """The training targets of the heads, one entry per anchor."""

    labels: Int[ArrayLike, "*b n"]
    """Class index, NEGATIVE or IGNORE."""
    boxes: Float[ArrayLike, "*b n 4"]
    """The matched box, xyxy pixels; zeros where the anchor is not positive."""
    alignment: Float[ArrayLike, "*b n"] | None = None
    """Target of the positives and weight of their box losses, in [0, 1], from a task-aligned
    assigner, for class losses whose target is a quality. None: the quality is the IoU of the
    predicted box, and box losses have no weight."""
