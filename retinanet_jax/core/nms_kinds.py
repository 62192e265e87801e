"""The kinds of non-maximum suppression by name: the values of `postprocess.nms`."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.nms import nms
from retinanet_jax.core.soft_nms import soft_nms


class Candidates(NamedTuple):
    """Boxes of one image before NMS."""

    boxes: Float[ArrayLike, "n 4"]
    """Boxes, xyxy pixels."""
    scores: Float[ArrayLike, "n"]
    labels: Int[ArrayLike, "n"]
    valid: Bool[ArrayLike, "n"]
    """False for padding."""


class NmsLimits(NamedTuple):
    """The parameters of NMS; see PostprocessConfig."""

    iou: float | Float[ArrayLike, ""]
    max_detections: int
    score_threshold: float | int
    soft_sigma: float | int


Kept = tuple[Int32[Array, "d"], Float[Array, "d"], Bool[Array, "d"]]


def _greedy(found: Candidates, limits: NmsLimits) -> Kept:
    """Keeps the scores."""
    indices, kept = nms(
        found.boxes,
        found.scores,
        found.valid,
        iou_threshold=limits.iou,
        max_outputs=limits.max_detections,
        labels=found.labels,
    )
    return indices, jnp.where(kept, jnp.asarray(found.scores)[indices], 0), kept


def _across_classes(found: Candidates, limits: NmsLimits) -> Kept:
    return _greedy(found._replace(labels=jnp.zeros_like(found.labels)), limits)


def _soft(method: str) -> Callable[[Candidates, NmsLimits], Kept]:
    def suppress(found: Candidates, limits: NmsLimits) -> Kept:
        return soft_nms(
            found.boxes,
            found.scores,
            found.valid,
            found.labels,
            method=method,
            max_outputs=limits.max_detections,
            score_threshold=limits.score_threshold,
            iou_threshold=limits.iou,
            sigma=limits.soft_sigma,
        )

    return suppress


NMS_KINDS: dict[str, Callable[[Candidates, NmsLimits], Kept]] = {
    "class_wise": _greedy,
    "class_agnostic": _across_classes,
    "soft_linear": _soft("linear"),
    "soft_gaussian": _soft("gaussian"),
}
"""Functions that return the indices of at most max_detections boxes by descending score, their
scores, and a mask; indices and scores are 0 where the mask is False."""
