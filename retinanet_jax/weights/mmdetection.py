"""MMDetection's RetinaNets of the model zoo: retinanet_*.pth.

All conventions besides the weights are the recipe `mmdetection`, or `mmdetection_caffe` for style
'caffe', whose keys are the same (config/recipes.py). It differs from torchvision's: images are
resized as uint8, there is no ReLU before P7, anchors are not rounded (their order is
torchvision's), those of P6 and P7 are 64 and 128 pixels apart, the box coder limits shrinking as
well as growing, empty boxes are dropped before NMS, 100 detections are kept. The 80 class channels
are the categories in COCO's order.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from retinanet_jax.weights.keymap import LEAF_NAMES, Imported, Path, fill, is_batch_counter
from retinanet_jax.weights.torchvision import backbone_key

_HEADS = {"class_head": ("cls_convs", "retina_cls"), "box_head": ("reg_convs", "retina_reg")}


def detector_from_mmdetection(
    state: Mapping[str, np.ndarray], variables: Mapping[str, Any], *, partial: bool = False
) -> Imported:
    """The state dict of a RetinaNet as our variables; batch counters are left out.

    Raises:
      WeightsError: as keymap.fill does.
    """
    levels = [int(name[-1]) for name in variables["params"]["fpn"] if name.startswith("lateral")]
    return fill(
        variables,
        state,
        lambda path: detector_key(path, min(levels)),
        partial=partial,
        may_be_unused=is_batch_counter,
    )


def detector_key(path: Path, lowest: int = 3) -> str:
    """('fpn', 'p6', 'bias') -> 'neck.fpn_convs.3.conv.bias'.

    Levels of the pyramid, P6 and P7 included, are counted from 0 at the lowest.
    """
    if path[0] == "backbone":
        return "backbone." + backbone_key(path[1:])
    leaf = LEAF_NAMES[path[2]]
    kind, number = re.fullmatch(r"([a-z]+)(\d*)", path[1]).groups()
    if path[0] == "fpn":
        convs = "lateral_convs" if kind == "lateral" else "fpn_convs"
        return f"neck.{convs}.{int(number) - lowest}.conv.{leaf}"
    tower, output = _HEADS[path[0]]
    if kind == "output":
        return f"bbox_head.{output}.{leaf}"
    # ConvModule calls a group norm `gn`.
    return f"bbox_head.{tower}.{number}.{'gn' if kind == 'norm' else 'conv'}.{leaf}"
