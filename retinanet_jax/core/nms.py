"""Greedy non-maximum suppression: exact, class-wise, of fixed size, jittable.

Greedy NMS visits the boxes in descending order of score and drops each box that overlaps a kept
one. This implementation visits the sorted boxes in blocks; the result equals that of the
box-by-box algorithm in `torchvision.ops.nms`, for two reasons:

* The boxes of earlier blocks are final, so one comparison with the kept ones suppresses the boxes
  of a block that overlap them.
* Within a block, `keep[i] = alive[i] and no earlier kept j overlaps i` has exactly one solution,
  the greedy one, because each box depends on earlier boxes alone. Each iteration of the equation
  makes at least one more box of every chain final; the loop ends when nothing changes.

The alternatives are one step per kept box over all n boxes (an argmax-and-suppress loop), or one n
x n matrix. Measured on 2 CPU cores with n = 5000: the loop takes 5 ms for 100 outputs and 17 ms for
300; blocks of 128 take 1.8 and 2.0 ms, because few blocks fill the output. The worst case for
blocks are crowds of near-copies, where every block is visited: 9 ms (the loop: 2 ms). Larger blocks
compute more unused overlaps on a CPU; smaller ones need more sequential steps on a GPU.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from retinanet_jax.core import boxes as box_ops
from retinanet_jax.core.arrays import ArrayLike

BLOCK = 128


class _Kept(NamedTuple):
    """State of the loop: the next block, and the boxes kept so far in order of score."""

    block: Array
    count: Array
    ranks: Array
    boxes: Array
    labels: Array


# jit, so that calls outside of any jit compile the loops once.
@functools.partial(jax.jit, static_argnames=("max_outputs",))
def nms(
    boxes: Float[ArrayLike, "n 4"],
    scores: Float[ArrayLike, "n"],
    valid: Bool[ArrayLike, "n"],
    *,
    iou_threshold: float | Float[ArrayLike, ""],
    max_outputs: int,
    labels: Int[ArrayLike, "n"] | None = None,
) -> tuple[Int32[Array, "d"], Bool[Array, "d"]]:
    """Returns the indices of the boxes that exact greedy NMS keeps, by descending score.

    A kept box suppresses a box if their IoU is strictly above `iou_threshold` and, with `labels`,
    their labels are equal. (Labels are compared; no offset is added to the coordinates, which may
    be negative.) Boxes without area have IoU 0 with every box and are kept. If scores are equal,
    the lower index comes first.

    Args:
      boxes: boxes, xyxy in pixels.
      scores: scores, any real numbers; NaN sorts last.
      valid: False for padding, which is ignored.
      iou_threshold: IoU above which boxes are suppressed, in [0, 1]; may be traced.
      max_outputs: number d of outputs, a Python int of at least 1.
      labels: class of each box; None suppresses across classes.

    Returns:
      Indices into the input, 0 after the last kept box, and a mask that is True for kept boxes.

    Raises:
      ValueError: `max_outputs` is below 1.
    """
    if max_outputs < 1:
        raise ValueError(f"nms: max_outputs: {max_outputs} must be at least 1")
    num_boxes = boxes.shape[0]
    if num_boxes == 0:
        return jnp.zeros(max_outputs, jnp.int32), jnp.zeros(max_outputs, bool)
    boxes, scores, valid = jnp.asarray(boxes), jnp.asarray(scores), jnp.asarray(valid)
    labels = jnp.zeros(num_boxes, jnp.int32) if labels is None else jnp.asarray(labels)

    # A stable sort of negated scores keeps equal scores in the order of their indices.
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True).astype(jnp.int32)
    # Indices are padded to whole blocks, and not the boxes: [n 4] is slow to copy on a TPU.
    order = jnp.pad(order, (0, -num_boxes % min(BLOCK, num_boxes)))
    sorted_valid = valid[order] & (jnp.arange(len(order)) < num_boxes)
    ranks, count = _walk(boxes[order], labels[order], sorted_valid, iou_threshold, max_outputs)
    found = jnp.arange(max_outputs) < count
    return jnp.where(found, order[ranks], 0), found


def _walk(boxes, labels, valid, iou_threshold, max_outputs: int):
    """Greedy NMS of sorted boxes in whole blocks: ranks [max_outputs] and number of the kept."""
    num_boxes = boxes.shape[0]
    size = min(BLOCK, num_boxes)
    end = jnp.max(jnp.where(valid, jnp.arange(num_boxes) + 1, 0))

    def unfinished(kept: _Kept):
        return (kept.block * size < end) & (kept.count < max_outputs)

    def step(kept: _Kept) -> _Kept:
        start = kept.block * size
        block = [jax.lax.dynamic_slice_in_dim(x, start, size) for x in (boxes, labels, valid)]
        keep = _keep_in_block(*block, kept, iou_threshold)
        # The scatter drops positions past the end of the buffers, where the output is full.
        slots = jnp.where(keep, kept.count + jnp.cumsum(keep) - 1, max_outputs)
        return _Kept(
            block=kept.block + 1,
            count=jnp.minimum(kept.count + jnp.sum(keep), max_outputs),
            ranks=kept.ranks.at[slots].set(start + jnp.arange(size, dtype=jnp.int32), mode="drop"),
            boxes=kept.boxes.at[slots].set(block[0], mode="drop"),
            labels=kept.labels.at[slots].set(block[1], mode="drop"),
        )

    kept = jax.lax.while_loop(unfinished, step, _nothing_kept(boxes, labels, max_outputs))
    return kept.ranks, kept.count


def _nothing_kept(boxes, labels, max_outputs: int) -> _Kept:
    zero = jnp.zeros((), jnp.int32)
    return _Kept(
        block=zero,
        count=zero,
        ranks=jnp.zeros(max_outputs, jnp.int32),
        boxes=jnp.zeros((max_outputs, 4), boxes.dtype),
        labels=jnp.zeros(max_outputs, labels.dtype),
    )


def _keep_in_block(boxes, labels, valid, kept: _Kept, iou_threshold):
    """Which boxes of one sorted block greedy NMS keeps, given those kept before."""
    is_kept = jnp.arange(kept.boxes.shape[0]) < kept.count
    settled = _overlaps(kept.boxes, boxes, kept.labels, labels, iou_threshold) & is_kept[:, None]
    alive = valid & ~settled.any(axis=0)
    earlier = jnp.triu(jnp.ones((boxes.shape[0],) * 2, bool), k=1)
    rivals = _overlaps(boxes, boxes, labels, labels, iou_threshold) & earlier

    def suppress(keep):
        return alive & ~(rivals & keep[:, None]).any(axis=0)

    keep, _ = jax.lax.while_loop(
        lambda pair: jnp.any(pair[0] != pair[1]),
        lambda pair: (suppress(pair[0]), pair[0]),
        (suppress(alive), alive),
    )
    return keep


def _overlaps(boxes1, boxes2, labels1, labels2, iou_threshold):
    """Bool [n m]: IoU strictly above the threshold and the same label."""
    same_label = labels1[:, None] == labels2[None, :]
    return (box_ops.pairwise_iou(boxes1, boxes2) > iou_threshold) & same_label
