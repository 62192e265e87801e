"""The backbones by name: the table that `model.backbone` is looked up in."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from retinanet_jax.core.resnet import ARCHITECTURES, ResNet


def build_resnet(architecture: str, config: Any) -> ResNet:
    """A ResNet or ResNeXt as a ModelConfig asks for it."""
    return ResNet(
        architecture,
        top_level=config.backbone_levels[-1],
        stride_on=config.stride_on,
        norm=config.norm,
        norm_epsilon=config.norm_epsilon,
        norm_momentum=config.norm_momentum,
        frozen_stages=config.frozen_stages,
        remat=config.remat != "none",
        dtype=jnp.dtype(config.dtype),
        precision=config.precision,
    )


BACKBONES: dict[str, Callable[[Any], nn.Module]] = {
    name: functools.partial(build_resnet, name) for name in ARCHITECTURES
}
"""From a name to a function of the ModelConfig. The module that it makes is called as
`backbone(images, train)`, with normalised images [b h w 3], and gives {level: features [b h w c]},
of level l at stride 2 ** l, with at least config.backbone_levels. Where it freezes stages, the
names of its parts are ResNet's (see `trainable_mask`). CONTRIBUTING.md adds one."""
