"""Recipes: the conventions of each public project, by name.

A recipe has the config fields with which the project's weights give the project's detections, and
the fields of its training. `with_recipe` applies a recipe, or some of its sections, to a config, so
you can try the differences between two projects one by one:

    config = with_recipe(default_config(), "detectron2")
    config = with_recipe(config, "tf_vision", only=("matching", "loss"))

The text at each recipe lists the differences that no config field covers. The network is the
project's ResNet-50; for an imported checkpoint, the backbone, the input of P6 and the norm of the
heads are read from its arrays.

Sources, read in November 2026: arXiv 1708.02002 and Detectron (configs/12_2017_baselines,
roi_data/retinanet.py); torchvision 0.28 and 0.29 (models/detection: retinanet.py, anchor_utils.py,
transform.py, _utils.py; references/detection), detectron2 0.6 (modeling/meta_arch/retinanet.py,
configs/COCO-Detection), MMDetection 3.3 (configs/_base_, models/dense_heads), TensorFlow's official
models (vision/configs/retinanet.py, vision/losses/retinanet_losses.py). An epoch has the 117,266
images of COCO with objects, on which torchvision, detectron2 and MMDetection train.
"""

import copy
from typing import Any

from ml_collections import ConfigDict

_STEPS_PER_EPOCH = 7_330  # of 16 images; the last step has fewer

# Most projects resize to 800 / 1333 and pad each batch to multiples of 32.
_COMMON = {
    "pipeline.min_side": 800,
    "pipeline.max_side": 1333,
    "pipeline.pad_multiple": 32,
    "pipeline.eval_canvas": "tight",
    "pipeline.eval_resizing": "opencv",
    "pixels.mean": (103.53, 116.28, 123.675),
    "pixels.std": (1.0, 1.0, 1.0),
    "pixels.scale": 1.0,
    "pixels.order": "bgr",
    "augmentation.flip": True,
    "augmentation.scales": (),
    "augmentation.scale_jitter": (1.0, 1.0),
    "anchors.order": "scale_major",
    "anchors.rounding": "none",
    "anchors.center": 0.0,
    "anchors.strides": "power_of_two",
    "matching.positive_iou": 0.5,
    "matching.negative_iou": 0.4,
    "matching.low_quality": "own_box",
    "matching.low_quality_min_iou": 0.0,
    "matching.crowd_ioa": "none",
    "loss.classification": "focal",
    "loss.gamma": 2.0,
    "loss.alpha": 0.25,
    "loss.box": "l1",
    "loss.beta": 1 / 9,
    "loss.box_weight": 1.0,
    "loss.normalizer": "batch",
    "model.norm": "auto",
    "model.norm_epsilon": 1e-5,
    "model.norm_momentum": 0.1,
    "model.frozen_stages": "auto",
    "model.stride_on": "1x1",
    "model.extra_levels_from": "backbone",
    "model.relu_before_p7": True,
    "model.head_norm": "none",
    "model.prior": 0.01,
    "model.output_std": 0.01,
    "postprocess.score_threshold": 0.05,
    "postprocess.pre_nms_top_k": 1000,
    "postprocess.nms_iou": 0.5,
    "postprocess.max_detections": 100,
    "postprocess.clamp_both_sides": False,
    "postprocess.clip_before_nms": True,
    "postprocess.drop_empty": False,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.01,
    "optimizer.base_batch_size": 16,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "optimizer.decay": "all",
    "optimizer.schedule": "step",
    "optimizer.decay_at": (2 / 3, 8 / 9),
    "optimizer.decay_factor": 0.1,
    "optimizer.warmup_steps": 1000,
    "optimizer.warmup_factor": 0.001,
    "optimizer.gradient_clip": "none",
    "train.steps": 90_000,
    "train.batch_size": 16,
}

_RGB = {
    "pixels.mean": (0.485, 0.456, 0.406),
    "pixels.std": (0.229, 0.224, 0.225),
    "pixels.scale": 1 / 255,
    "pixels.order": "rgb",
}

PAPER = _COMMON | {
    "pipeline.pad_multiple": 128,
    "pixels.mean": (102.9801, 115.9465, 122.7717),
    "anchors.center": 0.5,
    "matching.low_quality_min_iou": 0.4,
    "loss.box": "smooth_l1",
    "loss.beta": 0.11,
    "optimizer.warmup_steps": 500,
    "optimizer.warmup_factor": 1 / 3,
}
"""The paper, with the settings of Detectron, its authors' code, where the paper gives none. The
low-quality matches in [.4, .5) are Detectron's; the paper mentions none ('matching.low_quality':
'none'). Detectron's boxes include their last pixel, so its anchors are centred on half a stride.
Two more differences of Detectron are available as fields: 1 added to the positives of every image
('loss.normalizer': 'images_plus_one') and rounded anchors ('anchors.rounding': 'detectron'). Not
covered: every score of P7 enters NMS."""

DETECTRON2 = _COMMON | {
    "pipeline.eval_resizing": "detectron2",
    "augmentation.scales": tuple(range(640, 801, 32)),
    "loss.normalizer": "running",
    "postprocess.clip_before_nms": False,
    "postprocess.drop_empty": True,
}
"""The model zoo's retinanet_R_50_FPN and R_101_FPN, schedule 1x. Detectron2's running mean counts
the positives of the two images of a GPU; here it is the mean per image over all devices. Not
covered: a box that overlaps no anchor makes every anchor with IoU 0 positive."""

TORCHVISION_V1 = (
    _COMMON
    | _RGB
    | {
        "pipeline.eval_resizing": "torchvision",
        "anchors.order": "ratio_major",
        "anchors.rounding": "torchvision",
        "anchors.strides": "grid",
        "loss.normalizer": "image",
        "model.stride_on": "3x3",
        "model.extra_levels_from": "fpn",
        "postprocess.max_detections": 300,
        "optimizer.decay_at": (16 / 26, 22 / 26),
        "train.steps": 26 * _STEPS_PER_EPOCH,
    }
)
"""`retinanet_resnet50_fpn`: frozen batch norm with epsilon 1e-5, as its builder sets it. Not
covered: a box that overlaps no anchor makes every anchor with IoU 0 positive."""

TORCHVISION_V1_COCO = TORCHVISION_V1 | {"model.norm_epsilon": 0.0}
"""The published file retinanet_resnet50_fpn_coco-eeacb38b.pth: torchvision sets the epsilon of the
frozen batch norm to 0 for these weights alone (`overwrite_eps`). The arrays do not show it."""

TORCHVISION_V2 = TORCHVISION_V1 | {
    "augmentation.scales": tuple(range(480, 801, 32)),
    "loss.box": "giou",
    "model.norm": "batch",
    "model.extra_levels_from": "backbone",
    "model.head_norm": "group",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.weight_decay": 0.05,
    "optimizer.decay": "kernels",
}
"""`retinanet_resnet50_fpn_v2`, trained as in its pull request (pytorch/vision 5756): live batch
norm over all GPUs, stem and layer1 frozen, group norm in the heads, generalized IoU. Not covered:
torchvision decays the biases of convolutions and not the norms, and it updates the running
statistics of frozen stages."""

MMDETECTION = _COMMON | {
    "pipeline.eval_resizing": "mmdetection",
    "pixels.mean": (123.675, 116.28, 103.53),
    "pixels.std": (58.395, 57.12, 57.375),
    "pixels.order": "rgb",
    "anchors.order": "ratio_major",
    "matching.low_quality": "that_box",
    "loss.normalizer": "images_or_one",
    "model.stride_on": "3x3",
    "model.relu_before_p7": False,
    "postprocess.clamp_both_sides": True,
    "postprocess.drop_empty": True,
    "optimizer.warmup_steps": 500,
    "optimizer.decay_at": (8 / 12, 11 / 12),
    "train.steps": 12 * _STEPS_PER_EPOCH,
}
"""retinanet_r18_fpn, _r50_fpn, _r101_fpn, _x101_32x4d_fpn and _x101_64x4d_fpn: style 'pytorch',
schedule 1x. Not covered: the scale and shift of batch norm are trained while the statistics are
frozen."""

MMDETECTION_CAFFE = MMDETECTION | {
    "model.stride_on": "1x1",
    "pixels.mean": DETECTRON2["pixels.mean"],
    "pixels.std": DETECTRON2["pixels.std"],
    "pixels.order": "bgr",
}
"""retinanet_r50_caffe_fpn and _r101_caffe_fpn: the same keys and shapes as style 'pytorch'."""

TF_VISION = (
    _COMMON
    | _RGB
    | {
        "pipeline.min_side": 640,
        "pipeline.max_side": 640,
        "pipeline.pad_multiple": 128,
        "pipeline.eval_canvas": "few",
        "augmentation.scale_jitter": (0.8, 1.2),
        "anchors.center": 0.5,
        "matching.negative_iou": 0.5,
        "matching.low_quality": "one_anchor",
        "loss.gamma": 1.5,
        "loss.box": "smooth_l1",
        "loss.beta": 0.1,
        "loss.box_weight": 1.25,
        "loss.normalizer": "batch_plus_one",
        "model.norm": "batch",
        "model.norm_epsilon": 1e-3,
        "model.norm_momentum": 0.01,
        "model.output_std": 1e-5,
        "model.frozen_stages": 0,
        "model.stride_on": "3x3",
        "model.extra_levels_from": "fpn",
        "postprocess.pre_nms_top_k": 5000,
        "optimizer.learning_rate": 0.32,
        "optimizer.base_batch_size": 256,
        "optimizer.decay": "kernels",
        "optimizer.decay_at": (57 / 72, 67 / 72),
        "optimizer.warmup_steps": 500,
        "optimizer.warmup_factor": 0.0067 / 0.32,
        "train.steps": 72 * (118_287 // 256),
        "train.batch_size": 256,
    }
)
"""retinanet_resnetfpn_coco, 72 epochs. Its box loss is 50 times the Huber loss with delta .1, which
Keras averages over the four numbers of a box: smooth L1 with beta .1, times 50 * .1 / 4. Not
covered: batch norm in the pyramid and the heads, and 5000 candidates before NMS per class instead
of per level."""

RECIPES = {
    "paper": PAPER,
    "detectron2": DETECTRON2,
    "torchvision_v1": TORCHVISION_V1,
    "torchvision_v1_coco": TORCHVISION_V1_COCO,
    "torchvision_v2": TORCHVISION_V2,
    "mmdetection": MMDETECTION,
    "mmdetection_caffe": MMDETECTION_CAFFE,
    "tf_vision": TF_VISION,
}
SECTIONS = tuple(dict.fromkeys(field.partition(".")[0] for field in _COMMON))
"""The sections of the config that a recipe sets."""


def with_recipe(
    config: ConfigDict, name: str, only: tuple[str, ...] = SECTIONS, **fields: Any
) -> ConfigDict:
    """Returns a copy of `config` with the fields of a recipe, then `fields` (section__name=value).

    Args:
      config: config from `default_config` or an experiment.
      name: one of RECIPES.
      only: sections to take from the recipe, such as ("matching", "loss").
      **fields: fields to set after the recipe.

    Raises:
      ValueError: an unknown recipe or section; the message lists the known ones.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: {name!r} is not one of {', '.join(RECIPES)}")
    if unknown := set(only) - set(SECTIONS):
        raise ValueError(f"recipe: only: {sorted(unknown)} are not among {', '.join(SECTIONS)}")
    config = copy.deepcopy(config)
    wanted = {k: v for k, v in RECIPES[name].items() if k.partition(".")[0] in only}
    own = {field.replace("__", ".", 1): value for field, value in fields.items()}
    config.update_from_flattened_dict(wanted | own)
    return config
