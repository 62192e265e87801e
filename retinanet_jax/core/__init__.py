"""RetinaNet itself: pure functions of arrays, and the Flax modules of the network.

Where to find what:
    network     layers, norms -> resnet, fpn, heads -> retinanet (Predictions)
    targets     anchors, iou_matching, atss, task_aligned -> matching -> assignment (Targets)
    loss        focal, box_losses -> anchor_losses, class_loss_total -> loss (Losses)
    detections  box_coder, nms, soft_nms -> nms_kinds -> postprocess (Detections)

>>> from retinanet_jax.core import anchors_for_image, focal_loss, retinanet_loss, RetinaNet
"""

from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image
from retinanet_jax.core.assignment import assign
from retinanet_jax.core.box_coder import decode, encode
from retinanet_jax.core.box_losses import ciou_loss, diou_loss, giou_loss, smooth_l1
from retinanet_jax.core.boxes import pairwise_iou
from retinanet_jax.core.focal import (
    FocalParams,
    focal_loss,
    focal_loss_from_labels,
    focal_loss_star,
    quality_focal_loss,
    varifocal_loss,
)
from retinanet_jax.core.layers import PixelConfig, normalize
from retinanet_jax.core.loss import Losses, retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import MatchingConfig
from retinanet_jax.core.postprocess import Detections, PostprocessConfig, detect
from retinanet_jax.core.retinanet import ModelConfig, RetinaNet, build_model
from retinanet_jax.core.targets import Targets

__all__ = [
    "AnchorConfig",
    "Detections",
    "FocalParams",
    "LossConfig",
    "Losses",
    "MatchingConfig",
    "ModelConfig",
    "PixelConfig",
    "PostprocessConfig",
    "RetinaNet",
    "Targets",
    "anchors_for_image",
    "assign",
    "build_model",
    "ciou_loss",
    "decode",
    "detect",
    "diou_loss",
    "encode",
    "focal_loss",
    "focal_loss_from_labels",
    "focal_loss_star",
    "giou_loss",
    "normalize",
    "pairwise_iou",
    "quality_focal_loss",
    "retinanet_loss",
    "smooth_l1",
    "varifocal_loss",
]
