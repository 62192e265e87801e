"""Matching anchors to ground-truth boxes: by IoU, and the table of all assigners.

RetinaNet paper (arXiv 1708.02002), section 4, "Anchors": an anchor is assigned to the box with the
highest IoU if that is at least 0.5, is background below 0.4, and is ignored in between. Public
implementations also assign to each box its best anchors, whatever their IoU; see `MatchingConfig`.
ASSIGNERS has all methods.

Padding, crowds and empty images are masks: every function has one compiled program per shape.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core import box_coder, boxes
from retinanet_jax.core.atss import match_atss
from retinanet_jax.core.centerness import split_outputs
from retinanet_jax.core.targets import IGNORE, NEGATIVE
from retinanet_jax.core.task_aligned import match_task_aligned, normalized_alignment

ArrayLike = Array | np.ndarray

LOW_QUALITY = ("own_box", "that_box", "one_anchor", "none")


@dataclasses.dataclass(frozen=True)
class MatchingConfig:
    """When an anchor is positive, negative or ignored.

    Raises:
      ValueError: an invalid value; the message names the field and the fix.
    """

    assigner: str = "iou"
    """A name in ASSIGNERS. iou: by the thresholds below (the paper). atss: by a threshold for each
    object, from its own candidates (arXiv 1912.02424). task_aligned: by the network's predictions
    (TOOD, arXiv 2108.07755); with loss.classification quality_focal or varifocal, their alignment
    is also the class target and the weight of the box loss."""
    positive_iou: float | int = 0.5
    """For iou: an anchor with at least this IoU with some box is positive."""
    negative_iou: float | int = 0.4
    """For iou: an anchor with less than this IoU with every box is negative; those in between are
    ignored."""
    low_quality: str = "own_box"
    """For iou: whether the anchors with the highest IoU of a box, all ties included, are positive
    at any IoU. own_box: yes, with the box that the anchor itself overlaps most, which may be
    another one (Detectron2, torchvision). that_box: yes, with the box whose best anchor it is, the
    last of several (MMDetection). one_anchor: as that_box, but only the first of tied anchors and
    the first of several boxes (TF). none: no (keras-retinanet)."""
    low_quality_min_iou: float | int = 0.0
    """For iou: low-quality matches have an IoU above this. At 0 a box that overlaps no anchor has
    no match (torchvision makes every anchor with IoU 0 positive then). 0.4 is close to Detectron
    1."""
    atss_locations: int = 9
    """For atss: the closest locations of each level whose anchors are candidates of an object (its
    paper's k: 9)."""
    aligned_anchors: int = 13
    """For task_aligned: positive anchors of an object (its paper's m: 13)."""
    aligned_score_power: float | int = 1.0
    """For task_aligned: exponent of the class score (its paper's alpha: 1)."""
    aligned_iou_power: float | int = 6.0
    """For task_aligned: exponent of the IoU (its paper's beta: 6)."""
    crowd_ioa: float | int | None = 0.5
    """Negative anchors with at least this share of their area inside one crowd region are ignored.
    'none': crowd regions are dropped and their anchors are negative (all public
    implementations)."""

    def __post_init__(self):
        if self.assigner not in ASSIGNERS:
            raise ValueError(
                f"matching.assigner: {self.assigner!r} is not one of {', '.join(ASSIGNERS)}"
            )
        for name in ("atss_locations", "aligned_anchors"):
            if getattr(self, name) < 1:
                raise ValueError(f"matching.{name}: {getattr(self, name)} must be at least 1")
        for name in ("aligned_score_power", "aligned_iou_power"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"matching.{name}: {getattr(self, name)} must be 0 or more")
        if not 0 < self.positive_iou <= 1:
            raise ValueError(f"matching.positive_iou: {self.positive_iou} is not in (0, 1]")
        if not 0 <= self.negative_iou <= self.positive_iou:
            raise ValueError(
                f"matching.negative_iou: {self.negative_iou} is not between 0 and "
                f"matching.positive_iou ({self.positive_iou})"
            )
        if self.low_quality not in LOW_QUALITY:
            raise ValueError(
                f"matching.low_quality: {self.low_quality!r} is not one of {', '.join(LOW_QUALITY)}"
            )
        if not 0 <= self.low_quality_min_iou < 1:
            raise ValueError(
                f"matching.low_quality_min_iou: {self.low_quality_min_iou} is not in [0, 1)"
            )
        if self.crowd_ioa is not None and not 0 < self.crowd_ioa <= 1:
            raise ValueError(
                f"matching.crowd_ioa: {self.crowd_ioa} is not in (0, 1]; "
                "write 'none' to drop crowds"
            )


def match(
    iou: Float[ArrayLike, "n m"], valid: Bool[ArrayLike, "m"], config: MatchingConfig
) -> Int[Array, "n"]:
    """Matches anchors to boxes.

    Args:
      iou: IoU of n anchors with m boxes.
      valid: False for padding and crowds, which match nothing.
      config: thresholds and low-quality matches.

    Returns:
      int32: the index of the matched box (the lowest of ties), NEGATIVE or IGNORE.
    """
    iou, valid = jnp.asarray(iou), jnp.asarray(valid)
    if iou.shape[1] == 0:
        return jnp.full(iou.shape[:1], NEGATIVE, jnp.int32)
    # The barrier keeps one matrix for the maxima and for the comparisons with them. A compiler that
    # computed it twice could round differently, and `iou == top` would be False.
    iou = jax.lax.optimization_barrier(jnp.where(valid, iou, -1))
    asked = _low_quality_pairs(iou, config)
    best, own, last = _reduce_boxes(iou, asked)
    state = jnp.where(best < config.negative_iou, NEGATIVE, IGNORE)
    matches = jnp.where(best >= config.positive_iou, own, state)
    if config.low_quality == "own_box":
        return jnp.where(last >= 0, own, matches)
    if config.low_quality == "one_anchor":
        return jnp.where(last >= 0, jnp.argmax(asked, axis=1), matches)
    return jnp.where(last >= 0, last, matches)


def _low_quality_pairs(iou, config):
    """Bool [n m]: the anchor is a low-quality match of the box."""
    if config.low_quality == "none":
        return jnp.zeros(iou.shape, bool)
    top = jnp.max(iou, axis=0)
    asked = (iou == top) & (top > config.low_quality_min_iou)
    if config.low_quality == "one_anchor":
        asked &= jnp.arange(len(iou))[:, None] == jnp.argmax(iou, axis=0)
    return asked


def _reduce_boxes(iou, asked):
    """For each anchor: the highest IoU, the first box that has it, and the last asked box or -1.

    One reduction, so that compilers read the matrix once.
    """
    box = jax.lax.broadcasted_iota(jnp.int32, iou.shape, 1)

    def combine(a, b):
        a_wins = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
        best, own = (jnp.where(a_wins, x, y) for x, y in zip(a[:2], b[:2], strict=True))
        return best, own, jnp.maximum(a[2], b[2])

    start = (iou.dtype.type(-jnp.inf), np.int32(np.iinfo(np.int32).max), np.int32(-1))
    return jax.lax.reduce((iou, box, jnp.where(asked, box, -1)), start, combine, (1,))


class ImageAnchors(NamedTuple):
    """What an assigner knows of an image."""

    anchors: Float[ArrayLike, "n 4"]
    """Of all levels, xyxy pixels."""
    level_sizes: tuple[int, ...]
    """Number of anchors of each level."""
    anchors_per_location: int
    gt_boxes: Float[ArrayLike, "m 4"]
    gt_labels: Int[ArrayLike, "m"]
    """-1 for padding."""
    valid: Bool[ArrayLike, "m"]
    """False for padding and crowds, which match no anchor."""
    class_logits: tuple[Float[ArrayLike, "_ k"], ...] = ()
    """Per level; only for an assigner with needs_predictions."""
    box_deltas: tuple[Float[ArrayLike, "_ v"], ...] = ()
    """Per level; only for an assigner with needs_predictions."""


class Assigner(NamedTuple):
    """A value of `matching.assigner`."""

    match: Callable[[ImageAnchors, MatchingConfig], Array]
    """Returns int32 [n]: the index of the box of each anchor, NEGATIVE or IGNORE. It is not
    differentiated."""
    needs_predictions: bool = False
    alignment: Callable[..., Array] | None = None
    """(ImageAnchors, MatchingConfig, matches [n], their labels [n], their boxes [n 4]) ->
    Targets.alignment [n]."""


def _by_iou(image: ImageAnchors, config: MatchingConfig) -> Array:
    return match(boxes.pairwise_iou(image.anchors, image.gt_boxes), image.valid, config)


def _by_atss(image: ImageAnchors, config: MatchingConfig) -> Array:
    ends = np.cumsum(image.level_sizes)[:-1]
    return match_atss(
        tuple(jnp.split(jnp.asarray(image.anchors), ends)),
        image.gt_boxes,
        image.valid,
        locations=config.atss_locations,
        anchors_per_location=image.anchors_per_location,
    )


def _predicted_boxes(image: ImageAnchors) -> Array:
    outputs = jnp.concatenate(image.box_deltas, dtype=jnp.float32)
    return box_coder.decode(image.anchors, split_outputs(outputs)[0])


def _by_alignment(image: ImageAnchors, config: MatchingConfig) -> Array:
    return match_task_aligned(
        image.anchors,
        image.class_logits,
        _predicted_boxes(image),
        image.gt_boxes,
        image.gt_labels,
        image.valid,
        count=config.aligned_anchors,
        score_power=config.aligned_score_power,
        iou_power=config.aligned_iou_power,
    )


def _alignment(
    image: ImageAnchors, config: MatchingConfig, matches: Array, labels: Array, matched: Array
) -> Array:
    return normalized_alignment(
        image.class_logits,
        _predicted_boxes(image),
        matches,
        labels,
        matched,
        len(image.gt_boxes),
        score_power=config.aligned_score_power,
        iou_power=config.aligned_iou_power,
    )


ASSIGNERS: dict[str, Assigner] = {
    "iou": Assigner(_by_iou),
    "atss": Assigner(_by_atss),
    "task_aligned": Assigner(_by_alignment, needs_predictions=True, alignment=_alignment),
}
"""The values of `matching.assigner`. CONTRIBUTING.md shows how to add one."""
