"""Weights for torchvision: a state dict as .safetensors, which `load_state_dict` takes.

export_torchvision(detector_variables, config, "retinanet.safetensors")

model = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, num_classes=80)
model.load_state_dict(safetensors.torch.load_file("retinanet.safetensors"))
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from retinanet_jax.config.settings import Config
from retinanet_jax.weights.torchvision import detector_key
from retinanet_jax.weights.weights_error import WeightsError


def export_torchvision(
    variables: Mapping[str, Any], config: Config, path: str | os.PathLike
) -> dict[str, np.ndarray]:
    """Writes a detector's variables in torchvision's layout; exact, since nothing is computed.

    The order of anchors becomes torchvision's (a permutation of the outputs' channels). Where
    `config` differs from torchvision's default builder, the user has to set it there: rounding and
    strides of anchors (AnchorGenerator), mean and standard deviation of the pixels, P6 from C5
    (LastLevelP6P7), group norm in the heads, the epsilon of batch norm. Counters of batch norm's
    training steps are not written; torch uses zeros for them.

    Args:
      variables: {'params', 'batch_stats'} of a RetinaNet, float32.
      config: sections model and anchors are read.
      path: path of the file.

    Returns:
      The state dict as written: arrays by torchvision's keys, in torch's layout.

    Raises:
      WeightsError: torchvision has no such network; names the field.
    """
    _check_exportable(config)
    levels = config.model.backbone_levels
    state = {}
    for full_path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables)):
        place = tuple(entry.key for entry in full_path)[1:]
        value = np.asarray(leaf, np.float32)
        if place[1] == "output":
            value = _to_ratio_major(value, config)
        if place[-1] == "kernel":
            value = value.transpose(3, 2, 0, 1)
        state[detector_key(place, levels[0], levels[-1])] = np.ascontiguousarray(value)
    write_safetensors(path, state)
    return state


def _check_exportable(config: Config) -> None:
    model = config.model
    for field, can_be in (
        ("stride_on", ("3x3",)),
        ("relu_before_p7", (True,)),
        ("norm", ("batch", "frozen_batch")),
        ("centerness", (False,)),
        ("box_bins", (0,)),
    ):
        if getattr(model, field) not in can_be:
            raise WeightsError(
                f"config.model.{field}: {getattr(model, field)!r} is not supported: torchvision's "
                f"RetinaNet has {' or '.join(map(str, can_be))}"
            )


def _to_ratio_major(value: np.ndarray, config: Config) -> np.ndarray:
    """An output's last axis, (scale, ratio, value), as (ratio, scale, value)."""
    if config.anchors.order == "ratio_major":
        return value
    counts = len(config.anchors.scales), len(config.anchors.ratios)
    channels = value.reshape(*value.shape[:-1], *counts, -1)
    return channels.swapaxes(-3, -2).reshape(value.shape)


def write_safetensors(path: str | os.PathLike, state: Mapping[str, np.ndarray]) -> None:
    """A .safetensors file, as torch's users write it; it gets its name when it is complete."""
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    save_file(dict(state), beside, metadata={"format": "pt"})
    beside.replace(path)
