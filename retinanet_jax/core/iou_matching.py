"""Matches anchors to boxes by IoU: box by box, or all pairs at once.

RetinaNet paper (arXiv 1708.02002), section 4, "Anchors": an anchor is assigned to the box with the
highest IoU if that is at least 0.5, is background below 0.4, and is ignored in between. Public
implementations also assign to each box its best anchors, whatever their IoU: `low_quality`.

CPUs and TPUs process one box after the other: padding costs no time, and the overlaps of all pairs
are not stored. A GPU would wait for its host after each box, so it compares all pairs at once.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core import boxes
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.targets import IGNORE, NEGATIVE


class IouRules(NamedTuple):
    """The fields of `MatchingConfig` with these names; see there."""

    positive_iou: float
    negative_iou: float
    low_quality: str
    low_quality_min_iou: float


def match_by_iou(
    anchors: Float[ArrayLike, "n 4"],
    gt_boxes: Float[ArrayLike, "m 4"],
    valid: Bool[ArrayLike, "m"],
    rules: IouRules,
) -> Int[Array, "n"]:
    """Matches the anchors to the boxes of one image, by the method of the platform.

    Args:
      anchors: anchors of all levels, xyxy pixels.
      gt_boxes: boxes of m objects in the same pixels; padding may have any finite values.
      valid: False for padding and crowds, which match nothing.
      rules: thresholds and low-quality matches.

    Returns:
      int32: the index of the matched box (the lowest of ties), NEGATIVE or IGNORE.
    """
    one_by_one = functools.partial(_boxes_in_turn, rules=rules)
    return jax.lax.platform_dependent(
        *map(jnp.asarray, (anchors, gt_boxes, valid)),
        cpu=one_by_one,
        tpu=one_by_one,
        default=lambda anchors, gt_boxes, valid: match_pairs(
            boxes.pairwise_iou(anchors, gt_boxes), valid, rules
        ),
    )


def _boxes_in_turn(anchors, gt_boxes, valid, rules):
    # Without the barrier, a TPU would take the coordinates out of rows of four for each box.
    x1, y1, x2, y2 = jax.lax.optimization_barrier(tuple(anchors.T))

    def overlaps(i):
        columns = jnp.stack([x1, y1, x2, y2], axis=-1)
        return boxes.iou(columns, jnp.broadcast_to(gt_boxes[i], columns.shape))

    return match_in_turn(overlaps, valid, len(anchors), rules)


def match_in_turn(
    overlaps: Callable[[Array], Float[Array, "n"]],
    valid: Bool[ArrayLike, "m"],
    num_anchors: int,
    rules: IouRules,
) -> Int[Array, "n"]:
    """Returns the matches of n anchors, computed from one box after the other.

    Args:
      overlaps: function from the index of a box to its IoU with each anchor.
      valid: False for padding and crowds; the loop ends with the last valid box.
      num_anchors: the number n of anchors.
      rules: thresholds and low-quality matches.
    """
    valid, nothing = jnp.asarray(valid), jnp.full(num_anchors, -1, jnp.int32)

    def take(i, found):
        best, own, claimed_by = found
        # The barrier keeps one array for the maximum and for the comparison with it. A compiler
        # that computed it twice could round differently, and `iou == top` would be False.
        iou = jax.lax.optimization_barrier(jnp.where(valid[i], overlaps(i), -1))
        claimed = _claimed(iou, rules)
        if rules.low_quality == "one_anchor":
            claimed &= claimed_by < 0
        higher = iou > best
        return (
            jnp.where(higher, iou, best),
            jnp.where(higher, i, own),
            jnp.where(claimed, i, claimed_by),
        )

    start = -jnp.ones(num_anchors), nothing, nothing
    return _decide(*in_turn(valid, take, start), rules)


def in_turn(mask: Bool[Array, "m"], take: Callable, start: Array | tuple[Array, ...]):
    """`jax.lax.fori_loop` over the boxes of an image, up to the last one in the mask."""
    if len(mask) == 0:
        return start
    end = jnp.max(jnp.arange(1, len(mask) + 1, dtype=jnp.int32), initial=0, where=mask)
    return jax.lax.fori_loop(0, end, take, start)


def match_pairs(
    iou: Float[ArrayLike, "n m"], valid: Bool[ArrayLike, "m"], rules: IouRules
) -> Int[Array, "n"]:
    """Returns the matches of n anchors, from all pairs' IoU; see `match_by_iou` for `valid`."""
    iou, valid = jnp.asarray(iou), jnp.asarray(valid)
    if iou.shape[1] == 0:
        return jnp.full(iou.shape[:1], NEGATIVE, jnp.int32)
    iou = jax.lax.optimization_barrier(jnp.where(valid, iou, -1))  # for the same reason
    claimed = jax.vmap(functools.partial(_claimed, rules=rules), 1, 1)(iou)
    best, own, last = _reduce_boxes(iou, claimed)
    if rules.low_quality == "one_anchor":
        last = jnp.where(last >= 0, jnp.argmax(claimed, axis=1), -1)
    return _decide(best, own, last, rules)


def _claimed(iou: Float[Array, "n"], rules: IouRules) -> Bool[Array, "n"]:
    """Whether each anchor is a low-quality match of the box with these overlaps."""
    if rules.low_quality == "none":
        return jnp.zeros(iou.shape, bool)
    top = jnp.max(iou)
    claimed = (iou == top) & (top > rules.low_quality_min_iou)
    if rules.low_quality == "one_anchor":
        claimed &= jnp.arange(len(iou)) == jnp.argmax(iou)
    return claimed


def _reduce_boxes(iou, claimed):
    """For each anchor: the highest IoU, the first box that has it, the last box that claims it.

    One reduction, so that compilers read the matrix once.
    """
    box = jax.lax.broadcasted_iota(jnp.int32, iou.shape, 1)

    def combine(a, b):
        a_wins = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
        best, own = (jnp.where(a_wins, x, y) for x, y in zip(a[:2], b[:2], strict=True))
        return best, own, jnp.maximum(a[2], b[2])

    start = (iou.dtype.type(-jnp.inf), np.int32(np.iinfo(np.int32).max), np.int32(-1))
    return jax.lax.reduce((iou, box, jnp.where(claimed, box, -1)), start, combine, (1,))


def _decide(best, own, claimed_by, rules: IouRules) -> Int[Array, "n"]:
    """The match of each anchor.

    Args:
      best: its highest IoU.
      own: the box with that IoU.
      claimed_by: the box of which it is a low-quality match, or -1.
      rules: thresholds and low-quality matches.
    """
    state = jnp.where(best < rules.negative_iou, NEGATIVE, IGNORE)
    matches = jnp.where(best >= rules.positive_iou, own, state)
    kept = own if rules.low_quality == "own_box" else claimed_by
    return jnp.where(claimed_by >= 0, kept, matches)
