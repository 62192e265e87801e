"""ResNet (He et al. 2015) and ResNeXt (Xie et al. 2016) features, in torchvision's layout.

Initialisation is torchvision's: He normal over the fan-out for convolutions, scale 1 and bias 0 for
norms.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.layers import Conv, max_pool, relu
from retinanet_jax.core.norms import Norm, convolve_and_norm

MODULE = Callable[..., nn.Module]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Blocks per stage (layer1 to layer4), their kind, and the groups of a ResNeXt."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool = True
    groups: int = 1
    width_per_group: int = 64


ARCHITECTURES = {
    "resnet18": Architecture((2, 2, 2, 2), bottleneck=False),
    "resnet34": Architecture((3, 4, 6, 3), bottleneck=False),
    "resnet50": Architecture((3, 4, 6, 3)),
    "resnet101": Architecture((3, 4, 23, 3)),
    "resnet152": Architecture((3, 8, 36, 3)),
    "resnext50_32x4d": Architecture((3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x4d": Architecture((3, 4, 23, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": Architecture((3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": Architecture((3, 4, 23, 3), groups=64, width_per_group=4),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; the first convolution has the stride."""

    planes: int
    stride: int
    architecture: Architecture
    stride_on: str  # unused: a basic block has no 1x1 convolution
    conv: MODULE
    norm: MODULE

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        conv1 = self.conv(self.planes, 3, stride=self.stride, name="conv1")
        y = relu(convolve_and_norm(conv1, self.norm(self.planes, name="bn1"), x, train))
        conv2 = self.conv(self.planes, 3, name="conv2")
        y = convolve_and_norm(conv2, self.norm(self.planes, name="bn2"), y, train)
        return relu(y + shortcut(self, x, self.planes, train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut.

    The stride is on the 3x3 (torchvision) or on the first 1x1 (the paper).
    """

    planes: int
    stride: int
    architecture: Architecture
    stride_on: str
    conv: MODULE
    norm: MODULE

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        groups = self.architecture.groups
        width = self.planes * self.architecture.width_per_group // 64 * groups
        first, second = (1, self.stride) if self.stride_on == "3x3" else (self.stride, 1)
        conv1 = self.conv(width, 1, stride=first, name="conv1")
        y = relu(convolve_and_norm(conv1, self.norm(width, name="bn1"), x, train))
        conv2 = self.conv(width, 3, stride=second, groups=groups, name="conv2")
        y = relu(convolve_and_norm(conv2, self.norm(width, name="bn2"), y, train))
        conv3 = self.conv(4 * self.planes, 1, name="conv3")
        y = convolve_and_norm(conv3, self.norm(4 * self.planes, name="bn3"), y, train)
        return relu(y + shortcut(self, x, 4 * self.planes, train))


def shortcut(block: BasicBlock | Bottleneck, x: Array, features: int, train: bool) -> Array:
    """Returns x, or its 1x1 projection (a submodule of block) if size or channels change."""
    if block.stride == 1 and x.shape[-1] == features:
        return x
    projection = block.conv(features, 1, stride=block.stride, name="downsample_conv")
    return convolve_and_norm(projection, block.norm(features, name="downsample_bn"), x, train)


class ResNet(nn.Module):
    """Maps images to {level: C_level}, from level 2 to top_level (strides 4 to 2 ** top_level).

    Stages above top_level are not built.

    frozen_stages: 0 none, 1 the stem, 2 stem and layer1, ..., 5 all. The norms of frozen stages run
    in inference mode even in training, and no gradient flows into these stages.

    remat: saves only the input of each block for the gradients, and recomputes the rest.
    """

    architecture: str
    top_level: int = 5
    stride_on: str = "3x3"
    norm: str = "frozen_batch"
    norm_epsilon: float | int = 1e-5
    norm_momentum: float | int = 0.1
    frozen_stages: int = 0
    remat: bool = False
    dtype: Any = jnp.float32
    precision: str = "default"

    @nn.compact
    def __call__(self, images: Float[ArrayLike, "b h w 3"], train: bool) -> dict[int, Array]:
        new_conv = functools.partial(Conv, dtype=self.dtype, precision=self.precision)
        new_norm = functools.partial(
            Norm,
            kind=self.norm,
            epsilon=self.norm_epsilon,
            momentum=self.norm_momentum,
            dtype=self.dtype,
        )
        architecture = ARCHITECTURES[self.architecture]
        block = Bottleneck if architecture.bottleneck else BasicBlock
        if self.remat:
            block = nn.remat(block, static_argnums=2)  # train; self is 0
        stem, stem_norm = new_conv(64, 7, stride=2, name="conv1"), new_norm(64, name="bn1")
        train_stem = train and self.frozen_stages < 1
        x = max_pool(relu(convolve_and_norm(stem, stem_norm, images, train_stem)))
        x = self._stop_gradient_if_frozen(x, stage=1)
        levels = {}
        for stage in range(1, self.top_level):
            for index in range(architecture.blocks[stage - 1]):
                x = block(
                    planes=64 * 2 ** (stage - 1),
                    stride=2 if stage > 1 and index == 0 else 1,
                    architecture=architecture,
                    stride_on=self.stride_on,
                    conv=new_conv,
                    norm=new_norm,
                    name=f"layer{stage}_{index}",
                )(x, train and self.frozen_stages < stage + 1)
            x = self._stop_gradient_if_frozen(x, stage + 1)
            levels[stage + 1] = x
        return levels

    def _stop_gradient_if_frozen(self, x: Array, stage: int) -> Array:
        return jax.lax.stop_gradient(x) if stage <= self.frozen_stages else x


def stages_of(modules: Collection[str]) -> dict[str, int]:
    """Returns the stages of a ResNet's modules by name: 0 for the stem, 1 to 4 for layer1 to 4.

    Modules of other backbones have no stage, even if one of them is named conv1.
    """
    blocks = {module: re.fullmatch(r"layer([1-4])_\d+", module) for module in modules}
    stages = {module: int(block[1]) for module, block in blocks.items() if block}
    stem = [module for module in ("conv1", "bn1") if module in modules]
    return dict.fromkeys(stem, 0) | stages if stages else {}
