"""torchvision's state dicts: ResNet and ResNeXt backbones and the two RetinaNet detectors.

timm's ResNets have the same keys. All conventions besides the weights are the recipes
torchvision_v1 and torchvision_v2 (retinanet_jax/config/recipes.py).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retinanet_jax.weights.keymap import LEAF_NAMES, Imported, Path, fill, is_batch_counter

_CONV_BIAS = re.compile(r"(.*\.)?(conv\d|downsample\.0)\.bias")
_OLD_TOWER = re.compile(r"(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)")
_OLD_FPN = re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)")
_HEADS = {
    "class_head": ("head.classification_head", "cls_logits"),
    "box_head": ("head.regression_head", "bbox_reg"),
}


def backbone_from_torchvision(
    state: Mapping[str, np.ndarray],
    variables: Mapping[str, Any],
    *,
    norm_epsilon: float = 1e-5,
    partial: bool = False,
) -> Imported:
    """The state dict of a classifier (`resnet50`, timm's too) as a RetinaNet's backbone.

    variables: an initialised {'params', 'batch_stats'}; pyramid, heads and what the checkpoint
    lacks keep these values. The classifier (`fc`), stages that the network does not build and batch
    counters are reported as unused. norm_epsilon is ModelConfig's, for folded checkpoints (see
    unfold). Raises WeightsError as keymap.fill does.
    """
    stages = {name.split("_")[0] for name in variables["params"]["backbone"]}

    def is_beyond(key):
        module = key.split(".")[0]
        return (
            module == "fc" or is_batch_counter(key) or (_is_stage(module) and module not in stages)
        )

    return fill(
        variables,
        unfold(state, norm_epsilon),
        lambda path: backbone_key(path[1:]) if path[0] == "backbone" else None,
        partial=partial,
        may_be_unused=is_beyond,
    )


def detector_from_torchvision(
    state: Mapping[str, np.ndarray],
    variables: Mapping[str, Any],
    *,
    norm_epsilon: float = 1e-5,
    partial: bool = False,
) -> Imported:
    """The state dict of `retinanet_resnet50_fpn` (either key layout) or `_v2` as our variables.

    With partial=True a detector for other classes keeps its own class output, reported as
    misshapen. Otherwise as backbone_from_torchvision.
    """
    levels = [
        int(name.removeprefix("lateral"))
        for name in variables["params"]["fpn"]
        if name.startswith("lateral")
    ]
    return fill(
        variables,
        unfold(modern_keys(state), norm_epsilon),
        lambda path: detector_key(path, min(levels), max(levels)),
        partial=partial,
        may_be_unused=is_batch_counter,
    )


def unfold(state: Mapping[str, np.ndarray], epsilon: float) -> dict[str, np.ndarray]:
    """A backbone whose batch norm was folded into its convolutions, as one with batch norm.

    A `*.convN.bias` without a `*.bnN` becomes a norm of scale 1, that bias, mean 0 and variance 1 -
    epsilon: the same function as long as the norm is frozen. Live batch norm would compute new
    statistics, whose scale is already part of the convolution.
    """
    unfolded = dict(state)
    for key in state:
        found = _CONV_BIAS.fullmatch(key)
        if not found:
            continue
        norm = (found[1] or "") + found[2].replace("conv", "bn").replace("sample.0", "sample.1")
        if not any(other.startswith(norm + ".") for other in state):
            bias = np.asarray(unfolded.pop(key))
            unfolded[f"{norm}.weight"] = np.ones_like(bias)
            unfolded[f"{norm}.bias"] = bias
            unfolded[f"{norm}.running_mean"] = np.zeros_like(bias)
            unfolded[f"{norm}.running_var"] = np.full_like(bias, 1 - epsilon)
    return unfolded


def _is_stage(module: str) -> bool:
    return re.fullmatch(r"layer[1-4]", module) is not None


def backbone_key(path: Path) -> str:
    """('layer1_0', 'downsample_bn', 'mean') -> 'layer1.0.downsample.1.running_mean'."""
    *modules, leaf = path
    names = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}
    modules = [names.get(module, module.replace("_", ".")) for module in modules]
    return ".".join([*modules, LEAF_NAMES[leaf]])


def detector_key(path: Path, lowest: int = 3, top: int = 5) -> str:
    """('fpn', 'output3', 'bias') -> 'backbone.fpn.layer_blocks.0.0.bias'.

    lowest and top are the C levels that enter the pyramid, which torchvision counts from 0.
    """
    if path[0] == "backbone":
        return "backbone.body." + backbone_key(path[1:])
    module, leaf = path[1], LEAF_NAMES[path[2]]
    number = int(re.sub(r"\D", "", module) or 0)
    if path[0] == "fpn":
        blocks = {"lateral": "inner_blocks", "output": "layer_blocks"}.get(module[:-1])
        if blocks:
            return f"backbone.fpn.{blocks}.{number - lowest}.0.{leaf}"
        # always called p6 and p7, whatever levels the pyramid has
        return f"backbone.fpn.extra_blocks.p{number - top + 5}.{leaf}"
    head, output = _HEADS[path[0]]
    if module == "output":
        return f"{head}.{output}.{leaf}"
    return f"{head}.conv.{number}.{int(module.startswith('norm'))}.{leaf}"


def modern_keys(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state dict under the keys of torchvision 0.13 and later."""
    return {_modern_key(key): value for key, value in state.items()}


def keep_classes(state: Mapping[str, np.ndarray], kept: Sequence[int]) -> dict[str, np.ndarray]:
    """The state dict of the detector for some of its classes, in the order of `kept`.

    The output's channels are (anchor, class): those of the other classes are cut out.
    """
    anchors = len(state["head.regression_head.bbox_reg.bias"]) // 4
    cut = dict(state)
    for leaf in ("weight", "bias"):
        key = f"head.classification_head.cls_logits.{leaf}"
        channels = state[key].reshape(anchors, -1, *state[key].shape[1:])[:, list(kept)]
        cut[key] = channels.reshape(-1, *state[key].shape[1:])
    return cut


def _modern_key(key: str) -> str:
    """The older layout: towers counted with their ReLUs (0, 2, 4, 6), FPN keys without `.0`."""
    if found := _OLD_TOWER.fullmatch(key):
        return f"{found[1]}.{int(found[2]) // 2}.0.{found[3]}"
    if found := _OLD_FPN.fullmatch(key):
        return f"{found[1]}.0.{found[2]}"
    return key
