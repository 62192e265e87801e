"""The losses: of classes, of boxes, the choice of hard examples, and the sum of all."""

from retinanet_jax.losses.anchor import AnchorLosses, anchor_losses
from retinanet_jax.losses.box import ciou_loss, diou_loss, giou_loss, smooth_l1
from retinanet_jax.losses.classification import (
    focal_loss_from_labels,
    focal_loss_star,
    quality_focal_loss,
    sigmoid_focal_loss,
    varifocal_loss,
)
from retinanet_jax.losses.config import LossConfig
from retinanet_jax.losses.mining import hardest
from retinanet_jax.losses.normalizer import FIRST_POSITIVES, divisors, running_positives
from retinanet_jax.losses.total import Losses, LossParts, loss_parts, retinanet_loss, sum_levels

__all__ = [
    "FIRST_POSITIVES",
    "AnchorLosses",
    "LossConfig",
    "LossParts",
    "Losses",
    "anchor_losses",
    "ciou_loss",
    "diou_loss",
    "divisors",
    "focal_loss_from_labels",
    "focal_loss_star",
    "giou_loss",
    "hardest",
    "loss_parts",
    "quality_focal_loss",
    "retinanet_loss",
    "running_positives",
    "sigmoid_focal_loss",
    "smooth_l1",
    "sum_levels",
    "varifocal_loss",
]
