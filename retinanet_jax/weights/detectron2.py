"""detectron2's RetinaNets of the model zoo: COCO-Detection/retinanet_*.pkl, or a saved .pth.

What is no weight is the recipe `detectron2` (config/recipes.py). The same weights detect
something else than under torchvision's recipe: pixels are BGR without a division by the deviation
(the first kernel stays as it is: the image is turned), resizing is PIL's, strides are on the 1x1
convolutions, anchors are scale-major and not rounded, those of P6 and P7 lie 64 and 128 pixels
apart, boxes are clipped after NMS and dropped if nothing is left of them, 100 detections are kept.
The 80 class channels are the categories in COCO's order.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from retinanet_jax.weights.keymap import LEAF_NAMES, Imported, Path, fill, is_batch_counter

# Constants of the model that its state dict holds; the config has them too.
_CONSTANTS = re.compile(r"pixel_(mean|std)|anchor_generator\.cell_anchors\.\d+")
_FPN = {"lateral": "fpn_lateral", "output": "fpn_output", "p": "top_block.p"}
_HEADS = {"class_head": ("cls_subnet", "cls_score"), "box_head": ("bbox_subnet", "bbox_pred")}


def detector_from_detectron2(
    state: Mapping[str, np.ndarray], variables: Mapping[str, Any], *, partial: bool = False
) -> Imported:
    """The state dict of a RetinaNet (`GeneralizedRCNN`'s backbones fit in part) into ours.

    Raises:
      WeightsError: as keymap.fill says.
    """
    return fill(variables, state, detector_key, partial=partial, may_be_unused=is_no_weight)


def is_no_weight(key: str) -> bool:
    """Pixel statistics, cell anchors and batch counters."""
    return _CONSTANTS.fullmatch(key) is not None or is_batch_counter(key)


def detector_key(path: Path) -> str:
    """('backbone', 'layer2_0', 'bn1', 'bias') -> 'backbone.bottom_up.res3.0.conv1.norm.bias'.

    Stages are counted as in the paper (layer1 is res2), a norm is a part of its convolution, and
    the heads' convolutions are counted together with the ReLUs between them.
    """
    module, leaf = path[-2], LEAF_NAMES[path[-1]]
    if path[0] == "backbone":
        return f"backbone.bottom_up.{_block(path)}.{_in_block(module)}.{leaf}"
    kind, number = re.fullmatch(r"([a-z]+)(\d*)", module).groups()
    if path[0] == "fpn":
        return f"backbone.{_FPN[kind]}{number}.{leaf}"
    tower, output = _HEADS[path[0]]
    if kind == "output":
        return f"head.{output}.{leaf}"
    # A norm between them would follow its convolution; the zoo has none.
    place = 2 * int(number) if kind == "conv" else f"norm{number}"
    return f"head.{tower}.{place}.{leaf}"


def _block(path: Path) -> str:
    """('backbone', 'layer2_0', ...) -> 'res3.0', and 'stem' for what is in no layer."""
    if not path[1].startswith("layer"):
        return "stem"
    stage, index = path[1].removeprefix("layer").split("_")
    return f"res{int(stage) + 1}.{index}"


def _in_block(module: str) -> str:
    module = module.replace("downsample_conv", "shortcut").replace("downsample_bn", "shortcut.norm")
    return re.sub(r"bn(\d)", r"conv\1.norm", module)
