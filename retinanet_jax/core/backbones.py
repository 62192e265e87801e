"""The backbones by name: the values of `model.backbone`."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from retinanet_jax.core.resnet import ARCHITECTURES, ResNet


def build_resnet(architecture: str, config: Any) -> ResNet:
    """Builds the ResNet or ResNeXt of a ModelConfig."""
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
"""Functions from a ModelConfig to a module. The module maps (images, train), with normalised images
[b h w 3], to {level: features [b h w c]} with stride 2 ** level, for at least
config.backbone_levels. If it freezes stages, its submodules have ResNet's names (see
`trainable_mask`). CONTRIBUTING.md shows how to add a backbone."""
