"""Compares a checkpoint's conventions with a run's; they determine what the weights compute."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from retinanet_jax.config.recipes import RECIPES
from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.weights.weights_error import WeightsError

# Fields under which weights of the same shapes are another network.
CONVENTIONS = ("model.stride_on", "model.relu_before_p7", "pixels.order")
PIXELS = ("pixels.mean", "pixels.std", "pixels.scale")
# Fields that may differ: training adapts the weights.
_DIFFERENCES = (
    "model.norm_epsilon",
    "anchors.scales",
    "anchors.ratios",
    "anchors.size",
    "anchors.rounding",
    "anchors.strides",
    "anchors.center",
)


def differences(theirs: Mapping[str, Any], config: Config) -> list[str]:
    """One line for each field that differs from the run's and to which training can adapt."""
    return [
        f"differs from this run: {field} {_plain(theirs[field])}, here "
        f"{_plain(value_of(config, field))}"
        for field in _DIFFERENCES
        if field in theirs and _plain(theirs[field]) != _plain(value_of(config, field))
    ]


def reordered(value: np.ndarray, axis: int, order: str, anchors: AnchorConfig) -> np.ndarray:
    """Output channels (anchor, value) in `order`, as channels in the other order.

    axis: 0 (torch) or -1 (ours), where the channels are.
    """
    counts = len(anchors.scales), len(anchors.ratios)
    counts = counts if order == "scale_major" else counts[::-1]
    channels = np.moveaxis(value, axis, 0)
    split = channels.reshape(*counts, -1, *channels.shape[1:])
    return np.moveaxis(split.swapaxes(0, 1).reshape(channels.shape), 0, axis)


def check_conventions(theirs: Mapping[str, Any], config: Config, what: str) -> None:
    """Raises WeightsError where a convention differs, with the flags that set it."""
    wrong = [
        field
        for field in CONVENTIONS
        if field in theirs and theirs[field] != value_of(config, field)
    ]
    if not wrong:
        return
    if "pixels.order" in wrong:
        wrong += PIXELS
        theirs = _pixels_of(theirs["pixels.order"]) | dict(theirs)
    flags = " ".join(f"--config.{field}={_flag(theirs[field])}" for field in wrong)
    here = ", ".join(f"{field}={value_of(config, field)}" for field in wrong[:3])
    raise WeightsError(f"it is {what}, which does not fit {here}; write {flags}")


def _pixels_of(order: str) -> dict[str, Any]:
    recipe = RECIPES["torchvision_v1" if order == "rgb" else "detectron2"]
    return {field: recipe[field] for field in PIXELS}


def _flag(value: object) -> str:
    return f"'{value}'".replace(" ", "") if isinstance(value, tuple) else str(value)


def value_of(config: Config, field: str) -> Any:
    """The value of a field such as 'model.stride_on'."""
    section, name = field.split(".")
    return getattr(getattr(config, section), name)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(round(float(part), 6) for part in value)
    return float(value) if isinstance(value, int | float) else value
