"""Box losses, unreduced: smooth L1 and L1 of encoded deltas, IoU losses of decoded boxes."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from retinanet_jax.core import box_coder, boxes
from retinanet_jax.core.arrays import ArrayLike, Scalar


def smooth_l1(
    pred: Float[ArrayLike, "*#b"], target: Float[ArrayLike, "*#b"], beta: Scalar
) -> Float[Array, "*b"]:
    """Smooth L1: d^2 / (2 beta) where d = |pred - target| < beta, else d - beta / 2.

    Fast R-CNN (arXiv 1504.08083), equation 3, with the beta of Detectron. Huber's loss is beta
    times this.

    Args:
      pred: predictions.
      target: targets, in the same unit.
      beta: difference at which the loss turns from quadratic to linear, in this unit; 0 is L1.

    Returns:
      The loss of every element, unreduced.
    """
    difference = jnp.asarray(pred) - target
    # |d| with derivative 0 at 0, as in torch; jnp.abs has 1.
    distance = jnp.maximum(difference, -difference)
    parabola = 0.5 * distance**2 / jnp.where(beta > 0, beta, 1)
    return jnp.where(distance < beta, parabola, distance - 0.5 * beta)


def giou_loss(
    pred_boxes: Float[ArrayLike, "*b 4"], target_boxes: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """1 - generalized IoU of corresponding boxes (arXiv 1902.09630, algorithm 1).

    Args:
      pred_boxes: xyxy pixels.
      target_boxes: xyxy pixels.

    Returns:
      Values in [0, 2], 0 for equal boxes.
    """
    return 1 - boxes.generalized_iou(pred_boxes, target_boxes)


def diou_loss(
    pred_boxes: Float[ArrayLike, "*b 4"], target_boxes: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """1 - distance IoU of corresponding boxes (arXiv 1911.08287, equation 7).

    Args:
      pred_boxes: xyxy pixels.
      target_boxes: xyxy pixels.

    Returns:
      Values in [0, 2], 0 for equal boxes.
    """
    return 1 - boxes.distance_iou(pred_boxes, target_boxes)


def ciou_loss(
    pred_boxes: Float[ArrayLike, "*b 4"], target_boxes: Float[ArrayLike, "*b 4"]
) -> Float[Array, "*b"]:
    """1 - complete IoU of corresponding boxes (arXiv 1911.08287, equation 10).

    Args:
      pred_boxes: xyxy pixels.
      target_boxes: xyxy pixels.

    Returns:
      Values in [0, 3], 0 for equal boxes.
    """
    return 1 - boxes.complete_iou(pred_boxes, target_boxes)


BOX_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}
"""Losses of decoded boxes, xyxy pixels, by name in `loss.box`."""
DELTA_LOSSES = ("smooth_l1", "l1")


def box_losses(
    deltas: Float[ArrayLike, "*#b 4"],
    anchors: Float[ArrayLike, "*#b 4"],
    target_boxes: Float[ArrayLike, "*#b 4"],
    name: str,
    beta: float | int,
) -> Float[Array, "*b"]:
    """Computes the box loss of every anchor, as if all anchors were positive.

    Args:
      deltas: deltas that the box head predicts.
      anchors: anchors, xyxy pixels.
      target_boxes: target boxes, xyxy pixels.
      name: a key of BOX_LOSSES or DELTA_LOSSES.
      beta: beta of smooth_l1, in units of the deltas.
    """
    if name in BOX_LOSSES:
        return BOX_LOSSES[name](box_coder.decode(anchors, deltas), target_boxes)
    beta = beta if name == "smooth_l1" else 0.0
    return jnp.sum(smooth_l1(deltas, box_coder.encode(anchors, target_boxes), beta), axis=-1)
