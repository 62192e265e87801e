"""The network that a state dict belongs to, from the shapes of its arrays."""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from retinanet_jax.core.resnet import ARCHITECTURES, Architecture
from retinanet_jax.core.retinanet import ModelConfig
from retinanet_jax.weights.keymap import Path
from retinanet_jax.weights.weights_error import WeightsError

KeyOf = Callable[[Path], str]


class Network(NamedTuple):
    """What the arrays of a detector determine; `model` holds fields of ModelConfig."""

    model: dict[str, str | int]
    num_classes: int
    anchors_per_location: int


def read_backbone(state: Mapping[str, np.ndarray], key_of: KeyOf) -> str:
    """The name in ARCHITECTURES of a ResNet or ResNeXt.

    Args:
      state: arrays by key, in torch's layout.
      key_of: the checkpoint's key of a path in our tree.

    Raises:
      WeightsError: it is none of them, or an array that decides is missing.
    """
    refuse_deep_stem(state, key_of)
    blocks = tuple(_count_blocks(state, key_of, stage) for stage in (1, 2, 3, 4))
    bottleneck = key_of(("backbone", "layer1_0", "conv3", "kernel")) in state
    # Of a 3x3 convolution with groups: (channels, channels per group, 3, 3).
    width, per_group, *_ = _shape(state, key_of, "backbone", "layer1_0", "conv2", "kernel")
    found = Architecture(blocks, bottleneck, width // per_group, per_group)
    for name, architecture in ARCHITECTURES.items():
        if architecture == found:
            return name
    raise WeightsError(
        f"its backbone has {blocks} {'bottlenecks' if bottleneck else 'basic blocks'}, "
        f"{found.groups} groups of {per_group}; supported are {', '.join(ARCHITECTURES)}"
    )


def refuse_deep_stem(state: Mapping[str, np.ndarray], key_of: KeyOf) -> None:
    """Raises WeightsError for a ResNet-D, which has a stem of three convolutions."""
    stem = key_of(("backbone", "conv1", "kernel")).removesuffix(".weight")
    if stem + ".weight" not in state and stem + ".0.weight" in state:
        raise WeightsError(
            f"{stem}.0.weight: its backbone is a ResNet-D, such as timm's resnet50d (three "
            "convolutions in the stem, pooling before the shortcuts), which is not supported; use "
            "one with a 7x7 stem, such as timm's resnet50"
        )


def _count_blocks(state: Mapping[str, np.ndarray], key_of: KeyOf, stage: int) -> int:
    path = ("backbone", "layer{}_{}", "conv1", "kernel")
    keys = (key_of((path[0], path[1].format(stage, n), *path[2:])) for n in itertools.count())
    return sum(1 for _ in itertools.takewhile(state.__contains__, keys))


def read_network(state: Mapping[str, np.ndarray], key_of: KeyOf) -> Network:
    """The detector with the pyramid P3 to P7 that the arrays belong to.

    Raises:
      WeightsError: an array that decides is missing, or the backbone is unknown.
    """
    backbone = read_backbone(state, key_of)
    anchors, remainder = divmod(_shape(state, key_of, "box_head", "output", "bias")[0], 4)
    channels = _shape(state, key_of, "class_head", "output", "bias")[0]
    if remainder or not anchors or channels % anchors:
        raise WeightsError(
            f"it is not a RetinaNet: the outputs of its heads, {channels} and "
            f"{4 * anchors + remainder} channels, are not classes and 4 deltas for the same number "
            "of anchors"
        )
    fpn_channels = _shape(state, key_of, "fpn", "lateral3", "kernel")[0]
    depth = _head_depth(state, key_of)
    model = {
        "backbone": backbone,
        "fpn_channels": fpn_channels,
        "head_depth": depth,
        "head_norm": "group" if key_of(("class_head", "norm0", "scale")) in state else "none",
        "extra_levels_from": _extra_levels_from(state, key_of, fpn_channels),
    }
    if depth:
        model["head_channels"] = _shape(state, key_of, "class_head", "conv0", "kernel")[0]
    return Network(model, channels // anchors, anchors)


def _head_depth(state: Mapping[str, np.ndarray], key_of: KeyOf) -> int:
    keys = (key_of(("class_head", f"conv{n}", "kernel")) for n in itertools.count())
    return sum(1 for _ in itertools.takewhile(state.__contains__, keys))


def _extra_levels_from(state: Mapping[str, np.ndarray], key_of: KeyOf, fpn_channels: int) -> str:
    """P6 has as many input channels as P5, or as C5."""
    c5_channels = _shape(state, key_of, "fpn", "lateral5", "kernel")[1]
    p6_inputs = _shape(state, key_of, "fpn", "p6", "kernel")[1]
    if fpn_channels == c5_channels:
        return ModelConfig.extra_levels_from
    return "fpn" if p6_inputs == fpn_channels else "backbone"


def _shape(state: Mapping[str, np.ndarray], key_of: KeyOf, *path: str) -> tuple[int, ...]:
    key = key_of(path)
    if key not in state:
        raise WeightsError(
            f"missing: {key}; the file holds {len(state)} arrays: {', '.join(list(state)[:5])}, ..."
        )
    shape, axes = state[key].shape, 4 if path[-1] == "kernel" else 1
    if len(shape) != axes or not all(shape):
        raise WeightsError(f"{key}: has shape {shape} instead of {axes} axes, none of them empty")
    return shape
