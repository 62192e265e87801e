"""Computes the training targets of an image and of a batch, with the configured assigner.

Padding, crowds and empty images are masked, so every function compiles once per shape.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core import boxes
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.iou_matching import in_turn
from retinanet_jax.core.matching import ASSIGNERS, ImageAnchors, MatchingConfig
from retinanet_jax.core.targets import IGNORE, NEGATIVE, Targets


def assign(
    anchors: Float[ArrayLike, "n 4"],
    gt_boxes: Float[ArrayLike, "m 4"],
    gt_labels: Int[ArrayLike, "m"],
    gt_crowd: Bool[ArrayLike, "m"],
    config: MatchingConfig,
    *,
    level_sizes: tuple[int, ...] | None = None,
    anchors_per_location: int = 1,
    predictions: tuple[tuple, tuple] | None = None,
) -> Targets:
    """Returns the targets of one image. For a batch, use `assign_batch`.

    With the assigner iou, CPUs and TPUs store nothing for pairs of anchor and box. A GPU stores a
    matrix of n x m float32, 81 MB for 800x1344 (201,600 anchors) with 100 boxes.

    Args:
      anchors: anchors of all levels, xyxy pixels of the network's input.
      gt_boxes: ground-truth boxes in the same pixels; padding may have any finite values.
      gt_labels: class indices, -1 for padding.
      gt_crowd: True for crowd regions, which match no anchor.
      config: the assigner, its parameters, and how to treat crowds.
      level_sizes: number of anchors of each level, for atss; None: one level.
      anchors_per_location: number of anchors at each location, for atss.
      predictions: (class_logits, box_deltas) as in ImageAnchors, for task_aligned.

    Returns:
      Targets of the n anchors; all NEGATIVE without boxes.

    Raises:
      ValueError: the assigner needs predictions, but none are given.
    """
    gt_labels, gt_crowd = jnp.asarray(gt_labels), jnp.asarray(gt_crowd)
    exists = gt_labels >= 0
    assigner = ASSIGNERS[config.assigner]
    if assigner.needs_predictions and predictions is None:
        raise ValueError(f"matching.assigner: {config.assigner!r} needs the network's predictions")
    levels = (len(anchors),) if level_sizes is None else level_sizes
    valid = exists & ~gt_crowd
    image = ImageAnchors(anchors, levels, anchors_per_location, gt_boxes, gt_labels, valid)
    if predictions is not None:
        logits, deltas = jax.lax.stop_gradient(predictions)
        image = image._replace(class_logits=logits, box_deltas=deltas)
    matches = assigner.match(image, config)
    if config.crowd_ioa is not None:
        crowded = _in_crowd(anchors, gt_boxes, exists & gt_crowd, config.crowd_ioa)
        matches = jnp.where(crowded & (matches == NEGATIVE), IGNORE, matches)
    labels, matched = _look_up(matches, gt_labels, gt_boxes)
    alignment = None
    if assigner.alignment is not None:
        alignment = assigner.alignment(image, config, matches, labels, matched)
    return Targets(jnp.where(matches >= 0, labels, matches), matched, alignment)


def assign_batch(
    anchors: Float[ArrayLike, "n 4"],
    gt_boxes: Float[ArrayLike, "b m 4"],
    gt_labels: Int[ArrayLike, "b m"],
    gt_crowd: Bool[ArrayLike, "b m"],
    config: MatchingConfig,
    *,
    level_sizes: tuple[int, ...] | None = None,
    anchors_per_location: int = 1,
    predictions: tuple[tuple, tuple] | None = None,
) -> Targets:
    """Returns the targets of a batch; takes the arguments of `assign`, with a leading axis b.

    It processes one image at a time, with the memory of one image. `jax.vmap` would need this
    memory for each image, and on a TPU it would fill tiles of 8 x 128 numbers with b images instead
    of 8.
    """

    def one(image):
        *objects, predicted = image
        options = {"level_sizes": level_sizes, "anchors_per_location": anchors_per_location}
        return assign(anchors, *objects, config, **options, predictions=predicted)

    return jax.lax.map(one, (gt_boxes, gt_labels, gt_crowd, predictions))


def _in_crowd(anchors, gt_boxes, crowd, least_share) -> Bool[Array, "n"]:
    """Whether at least this share of an anchor lies inside one of the crowd regions."""

    def take_turns(anchors, gt_boxes, crowd):
        def take(i, inside):
            share = boxes.pairwise_ioa(anchors, gt_boxes[i, None])[:, 0]
            return inside | (crowd[i] & (share >= least_share))

        return in_turn(crowd, take, jnp.zeros(len(anchors), bool))

    def compare_pairs(anchors, gt_boxes, crowd):
        return jnp.any(crowd & (boxes.pairwise_ioa(anchors, gt_boxes) >= least_share), axis=1)

    return jax.lax.platform_dependent(
        *map(jnp.asarray, (anchors, gt_boxes, crowd)),
        cpu=take_turns,
        tpu=take_turns,
        default=compare_pairs,
    )


def _look_up(matches, gt_labels, gt_boxes):
    """Labels [n] and boxes [n 4] of the matches; zeros for unmatched anchors.

    CPUs gather. GPUs and TPUs multiply by a one-hot matrix, since a gather is slow on TPUs; at the
    highest precision the product is exact.
    """
    table = jnp.concatenate([gt_boxes, gt_labels[:, None]], axis=1, dtype=jnp.float32)

    def gather(matches, table):
        nothing = jnp.zeros((1, 5), table.dtype)
        return jnp.concatenate([table, nothing])[jnp.where(matches >= 0, matches, len(table))]

    def multiply(matches, table):
        one_hot = matches[:, None] == jnp.arange(len(table))
        return jnp.dot(one_hot.astype(jnp.float32), table, precision="highest")

    found = jax.lax.platform_dependent(matches, table, cpu=gather, default=multiply)
    return found[:, 4].astype(jnp.int32), found[:, :4]
