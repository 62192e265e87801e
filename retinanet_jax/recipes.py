"""What a checkpoint was trained with and does not say: the conventions of each public project.

A recipe is the config fields that turn the project's weights into the project's detections, by
name; `with_recipe` lays one over a config. An experiment file may use them too:

    config = with_recipe(default_config(), "detectron2")

Sources, read in November 2026: torchvision 0.28 and 0.29 (models/detection: retinanet.py,
anchor_utils.py, transform.py, _utils.py), detectron2 0.6 (modeling/meta_arch/retinanet.py,
configs/COCO-Detection), MMDetection 3.3 (configs/_base_/models/retinanet_r50_fpn.py,
models/dense_heads). The parts of the network that can be read off the arrays (backbone, classes, P6
from C5 or P5, norm of the heads) are not here.
"""

from typing import Any

from ml_collections import ConfigDict

# Each project resizes to 800 / 1333 and pads to multiples of 32, no more than the batch needs.
_COMMON = {
    "pipeline.min_side": 800,
    "pipeline.max_side": 1333,
    "pipeline.pad_multiple": 32,
    "pipeline.eval_canvas": "tight",
    "matching.positive_iou": 0.5,
    "matching.negative_iou": 0.4,
    "matching.crowd_ioa": -1.0,
    "loss.gamma": 2.0,
    "loss.alpha": 0.25,
    "model.norm": "frozen_batch",
    "model.norm_epsilon": 1e-5,
    "model.frozen_stages": 2,
    "postprocess.score_threshold": 0.05,
    "postprocess.pre_nms_top_k": 1000,
    "postprocess.nms_iou": 0.5,
    "postprocess.max_detections": 100,
}

TORCHVISION_V1 = _COMMON | {
    "anchors.order": "ratio_major",
    "anchors.rounding": "torchvision",
    "anchors.center": 0.0,
    "anchors.strides": "grid",
    "model.stride_on": "3x3",
    "model.relu_before_p7": True,
    "pixels.mean": (0.485, 0.456, 0.406),
    "pixels.std": (0.229, 0.224, 0.225),
    "pixels.scale": 1 / 255,
    "pixels.order": "rgb",
    "pipeline.eval_resizing": "torchvision",
    "matching.low_quality": "own_box",
    "loss.box": "l1",
    "loss.normalizer": "image",
    "postprocess.clamp_both_sides": False,
    "postprocess.clip_before_nms": True,
    "postprocess.drop_empty": False,
    "postprocess.max_detections": 300,
}
"""`retinanet_resnet50_fpn`: frozen batch norm with epsilon 1e-5, as its builder makes it."""

TORCHVISION_V1_COCO = TORCHVISION_V1 | {"model.norm_epsilon": 0.0}
"""The published file retinanet_resnet50_fpn_coco-eeacb38b.pth: torchvision sets the epsilon of the
frozen batch norm to 0 for these weights alone (`overwrite_eps`). Nothing in the arrays tells."""

TORCHVISION_V2 = TORCHVISION_V1 | {
    "loss.box": "giou",
    "model.norm": "batch",
    "model.frozen_stages": 0,
}
"""`retinanet_resnet50_fpn_v2`: live batch norm; group norm in the heads; generalized IoU."""

DETECTRON2 = _COMMON | {
    "anchors.order": "scale_major",
    "anchors.rounding": "none",
    "anchors.center": 0.0,
    "anchors.strides": "power_of_two",
    "model.stride_on": "1x1",
    "model.relu_before_p7": True,
    "pixels.mean": (103.53, 116.28, 123.675),
    "pixels.std": (1.0, 1.0, 1.0),
    "pixels.scale": 1.0,
    "pixels.order": "bgr",
    "pipeline.eval_resizing": "detectron2",
    "matching.low_quality": "own_box",
    "loss.box": "l1",
    "loss.normalizer": "batch",
    "postprocess.clamp_both_sides": False,
    "postprocess.clip_before_nms": False,
    "postprocess.drop_empty": True,
}
"""The model zoo's retinanet_R_50_FPN and R_101_FPN. Detectron2 divides the loss by a running mean
of the number of positives; here it is the batch's own number."""

MMDETECTION = _COMMON | {
    "anchors.order": "ratio_major",
    "anchors.rounding": "none",
    "anchors.center": 0.0,
    "anchors.strides": "power_of_two",
    "model.stride_on": "3x3",
    "model.relu_before_p7": False,
    "pixels.mean": (123.675, 116.28, 103.53),
    "pixels.std": (58.395, 57.12, 57.375),
    "pixels.scale": 1.0,
    "pixels.order": "rgb",
    "pipeline.eval_resizing": "mmdetection",
    "matching.low_quality": "that_box",
    "loss.box": "l1",
    "loss.normalizer": "batch",
    "postprocess.clamp_both_sides": True,
    "postprocess.clip_before_nms": True,
    "postprocess.drop_empty": True,
}
"""retinanet_r18_fpn, _r50_fpn, _r101_fpn, _x101_32x4d_fpn and _x101_64x4d_fpn: style 'pytorch'."""

MMDETECTION_CAFFE = MMDETECTION | {
    "model.stride_on": "1x1",
    "pixels.mean": DETECTRON2["pixels.mean"],
    "pixels.std": DETECTRON2["pixels.std"],
    "pixels.order": "bgr",
}
"""retinanet_r50_caffe_fpn and _r101_caffe_fpn: the same keys and shapes as style 'pytorch'."""

RECIPES = {
    "torchvision_v1": TORCHVISION_V1,
    "torchvision_v1_coco": TORCHVISION_V1_COCO,
    "torchvision_v2": TORCHVISION_V2,
    "detectron2": DETECTRON2,
    "mmdetection": MMDETECTION,
    "mmdetection_caffe": MMDETECTION_CAFFE,
}


def with_recipe(config: ConfigDict, name: str, **fields: Any) -> ConfigDict:
    """A copy of `config` with the fields of a recipe, then with `fields` (section__name=value).

    Raises:
      ValueError: no recipe has that name; the message lists them.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: {name!r} is not one of {', '.join(RECIPES)}")
    config = config.copy_and_resolve_references()
    own = {field.replace("__", ".", 1): value for field, value in fields.items()}
    config.update_from_flattened_dict(RECIPES[name] | own)
    return config
