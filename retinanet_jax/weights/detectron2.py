"""detectron2's RetinaNets of the model zoo (.pkl, or a saved .pth), and its ImageNet backbones.

All conventions besides the weights are the recipe `detectron2` (config/recipes.py). It differs from
torchvision's: pixels are BGR and not divided by the standard deviation (the first kernel stays as
it is: the image's channels are reversed), resizing is PIL's, strides are on the 1x1 convolutions,
anchors are scale-major and not rounded, those of P6 and P7 are 64 and 128 pixels apart, boxes are
clipped after NMS and dropped if empty, 100 detections are kept. The 80 class channels are the
categories in COCO's order.
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
    """The state dict of a RetinaNet as our variables.

    Raises:
      WeightsError: as keymap.fill does.
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


def from_caffe2(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """MSRA's ImageNet backbones (R-50.pkl, R-101.pkl) under torchvision's keys.

    Their blobs have Caffe2's names: res2_0_branch2a_w, res2_0_branch2a_bn_s. Batch norm is affine
    (scale and bias): as detectron2's FrozenBatchNorm2d does, its mean becomes 0 and its variance
    1 - 1e-5, so that the epsilon cancels.
    """
    found = {}
    for key, value in state.items():
        key = _CAFFE2_STEM.sub("conv1_", key)
        match = _CAFFE2_BLOB.fullmatch(key)
        if not match:
            continue  # the classifier, momenta
        stage, block, branch, norm, leaf = match.groups()
        place = f"layer{int(stage) - 1}.{block}." if stage else ""
        module = _CAFFE2_MODULES[branch or "conv1"][bool(norm)]
        found[f"{place}{module}.{'weight' if leaf in ('w', 's') else 'bias'}"] = value
        if leaf == "s":
            found[f"{place}{module}.running_mean"] = np.zeros_like(value)
            found[f"{place}{module}.running_var"] = np.full_like(value, 1 - 1e-5)
    return found


_CAFFE2_STEM = re.compile(r"^res_conv1_")
_CAFFE2_BLOB = re.compile(r"(?:res(\d)_(\d+)_(branch\w+?)|conv1)_(bn_)?([wsb])")
_CAFFE2_MODULES = {  # convolution, norm
    "conv1": ("conv1", "bn1"),
    "branch1": ("downsample.0", "downsample.1"),
    "branch2a": ("conv1", "bn1"),
    "branch2b": ("conv2", "bn2"),
    "branch2c": ("conv3", "bn3"),
}
