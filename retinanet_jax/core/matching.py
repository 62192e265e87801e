"""Matching anchors to ground-truth boxes by IoU, and the resulting training targets.

RetinaNet paper (arXiv 1708.02002), section 4, "Anchors": an anchor is assigned to the box with the
highest IoU if that is at least 0.5, is background below 0.4, and is ignored in between. Public
implementations also assign to each box its best anchors, whatever their IoU; see `MatchingConfig`.

Padding, crowds and empty images are masks: every function has one compiled program per shape.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core import boxes

ArrayLike = Array | np.ndarray

NEGATIVE = -1
"""State of a background anchor: in the class loss only."""
IGNORE = -2
"""State of an anchor that is in no loss."""

LOW_QUALITY = ("own_box", "that_box", "one_anchor", "none")


@dataclasses.dataclass(frozen=True)
class MatchingConfig:
    """When an anchor is positive, negative or ignored.

    Raises:
      ValueError: an invalid value; the message names the field and the fix.
    """

    positive_iou: float | int = 0.5
    """An anchor with at least this IoU with some box is positive."""
    negative_iou: float | int = 0.4
    """An anchor with less than this IoU with every box is negative; in between it is ignored."""
    low_quality: str = "own_box"
    """Whether the anchors with the highest IoU of a box, all ties included, are positive at any
    IoU. own_box: yes, with the box that the anchor itself overlaps most, which may be another one
    (Detectron2, torchvision). that_box: yes, with the box whose best anchor it is, the last of
    several (MMDetection). one_anchor: as that_box, but only the first of tied anchors and the first
    of several boxes (TF). none: no (keras-retinanet)."""
    low_quality_min_iou: float | int = 0.0
    """Low-quality matches have an IoU above this. At 0 a box that overlaps no anchor has no match
    (torchvision makes every anchor with IoU 0 positive then). 0.4 is close to Detectron 1."""
    crowd_ioa: float | int | None = 0.5
    """Negative anchors with at least this share of their area inside one crowd region are ignored.
    'none': crowd regions are dropped and their anchors are negative (all public
    implementations)."""

    def __post_init__(self):
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


class Targets(NamedTuple):
    """The training targets of the heads, one entry per anchor."""

    labels: Int[ArrayLike, "*b n"]
    """Class index, NEGATIVE or IGNORE."""
    boxes: Float[ArrayLike, "*b n 4"]
    """The matched box, xyxy pixels; zeros where the anchor is not positive."""


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


def assign(
    anchors: Float[ArrayLike, "n 4"],
    gt_boxes: Float[ArrayLike, "m 4"],
    gt_labels: Int[ArrayLike, "m"],
    gt_crowd: Bool[ArrayLike, "m"],
    config: MatchingConfig,
) -> Targets:
    """The targets of one image. For a batch use `assign_batch`.

    Memory for an image of 800x1344 (201,600 anchors) with 100 boxes, compiled: on CPUs 182 MB, two
    n x m float32 matrices; on a TPU one such matrix.

    Args:
      anchors: xyxy pixels of the network's input.
      gt_boxes: ground-truth boxes in the same pixels; padding may have any finite values.
      gt_labels: class indices, -1 for padding.
      gt_crowd: True for crowd regions, which match no anchor.
      config: thresholds, low-quality matches, crowds.

    Returns:
      Targets of the n anchors; all NEGATIVE without boxes.
    """
    gt_labels, gt_crowd = jnp.asarray(gt_labels), jnp.asarray(gt_crowd)
    exists = gt_labels >= 0
    matches = match(boxes.pairwise_iou(anchors, gt_boxes), exists & ~gt_crowd, config)
    if config.crowd_ioa is not None:
        share = boxes.pairwise_ioa(anchors, gt_boxes)
        crowded = jnp.any((share >= config.crowd_ioa) & exists & gt_crowd, axis=1)
        matches = jnp.where(crowded & (matches == NEGATIVE), IGNORE, matches)
    labels, matched = _look_up(matches, gt_labels, gt_boxes)
    return Targets(jnp.where(matches >= 0, labels, matches), matched)


def assign_batch(
    anchors: Float[ArrayLike, "n 4"],
    gt_boxes: Float[ArrayLike, "b m 4"],
    gt_labels: Int[ArrayLike, "b m"],
    gt_crowd: Bool[ArrayLike, "b m"],
    config: MatchingConfig,
) -> Targets:
    """The targets of a batch; arguments as those of `assign`, with leading axis b.

    GPUs and TPUs match one image at a time, with the memory of one image. `jax.vmap` would need
    that memory for each image, and on a TPU it would fill tiles of 8 x 128 numbers with b images
    instead of 8. CPUs use `jax.vmap`, which is faster there.
    """

    def one(image):
        return assign(anchors, *image, config)

    return jax.lax.platform_dependent(
        (gt_boxes, gt_labels, gt_crowd),
        cpu=jax.vmap(one),
        default=lambda images: jax.lax.map(one, images),
    )


def _look_up(matches, gt_labels, gt_boxes):
    """Labels [n] and boxes [n 4] of the matches; zeros for unmatched anchors.

    A product with a one-hot matrix instead of a gather, which is slow on TPUs and not faster on
    CPUs. At the highest precision the product is exact.
    """
    one_hot = matches[:, None] == jnp.arange(gt_labels.shape[0])
    table = jnp.concatenate([gt_boxes, gt_labels[:, None]], axis=1, dtype=jnp.float32)
    found = jnp.dot(one_hot.astype(jnp.float32), table, precision="highest")
    return found[:, 4].astype(jnp.int32), found[:, :4]
