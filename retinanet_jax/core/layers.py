"""Layers with torch's conventions: convolution, ReLU, pooling; and normalisation of pixels.

Public checkpoints come from torch, which pads both sides of stride-2 convolutions equally. XLA's
'SAME' agrees on odd inputs only, so every padding here is explicit.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, UInt8

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.cpu.convolution import convolve
from retinanet_jax.core.field_checks import one_of
from retinanet_jax.core.initialization import HE_NORMAL

Triple = tuple[float | int, float | int, float | int]


@dataclasses.dataclass(frozen=True)
class PixelConfig:
    """Normalisation of a uint8 RGB image: (pixel * scale - mean) / std.

    The defaults are torchvision's. detectron2's model zoo has scale 1, mean (103.53, 116.28,
    123.675), std 1 and order 'bgr'.
    """

    mean: Triple = (0.485, 0.456, 0.406)
    """Mean of each channel, in units of pixel * scale."""
    std: Triple = (0.229, 0.224, 0.225)
    """Standard deviation of each channel, in units of pixel * scale."""
    scale: float | int = 1 / 255
    """Factor of the pixels, applied before the mean is subtracted."""
    order: str = "rgb"
    """Channel order of the network, mean and std: rgb or bgr. Images are always RGB."""

    def __post_init__(self):
        one_of("pixels.order", self.order, ("rgb", "bgr"))
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"pixels.std: {self.std!r} must be positive, e.g. (1, 1, 1)")
        for name, values in (("mean", self.mean), ("scale", (self.scale,))):
            if not all(map(math.isfinite, values)):
                raise ValueError(f"pixels.{name}: {getattr(self, name)!r} is not finite")


def normalize(
    images: UInt8[ArrayLike, "b h w 3"] | Float[ArrayLike, "b h w 3"],
    config: PixelConfig,
    image_sizes: Float[ArrayLike, "b 2"] | None = None,
) -> Float[Array, "b h w 3"]:
    """Normalises RGB images.

    Args:
      images: uint8, or float32 with values up to 255.
      config: scale, mean, std and channel order.
      image_sizes: height and width of each image inside the canvas, pixels. The padding becomes 0
        after normalising, as in torchvision, detectron2 and MMDetection. None: no padding.

    Returns:
      Input of the network, float32.
    """
    pixels = jnp.asarray(images, jnp.float32)
    if config.order == "bgr":
        pixels = pixels[..., ::-1]
    mean, std = (np.asarray(values, np.float32) for values in (config.mean, config.std))
    pixels = (pixels * np.float32(config.scale) - mean) / std
    if image_sizes is None:
        return pixels
    return jnp.where(inside(image_sizes, pixels.shape[1:3])[..., None], pixels, 0.0)


def inside(image_sizes: Float[ArrayLike, "b 2"], canvas: tuple[int, int]) -> Bool[Array, "b h w"]:
    """Mask of the pixels of the canvas (height, width) that belong to the image."""
    height, width = jnp.asarray(image_sizes)[:, :, None, None].swapaxes(0, 1)
    return (jnp.arange(canvas[0])[:, None] < height) & (jnp.arange(canvas[1]) < width)


class Conv(nn.Module):
    """A square convolution padded by kernel // 2 on every side, as torch does; output sizes are
    ceil(n / stride).

    Parameters 'kernel' [k k c/groups d] and 'bias' [d] are those of nn.Conv, in float32. Products
    are computed in dtype; the result is in dtype, or in float32 with float32_result. For precision
    see ModelConfig. The default initialisation is He's over the fan-out (torchvision's ResNets).

    The kernel is multiplied by a multiplier, [d] float32: see norms.py.
    """

    features: int
    kernel_size: int
    stride: int = 1
    groups: int = 1
    use_bias: bool = False
    kernel_init: Any = HE_NORMAL
    bias_init: Any = nn.initializers.zeros
    dtype: Any = jnp.float32
    precision: str = "default"
    float32_result: bool = False

    @nn.compact
    def __call__(
        self, x: Float[ArrayLike, "b h w c"], multiplier: Float[Array, "d"] | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        shape = (*(self.kernel_size,) * 2, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        if multiplier is not None:
            kernel = kernel * multiplier
        x, kernel = jnp.asarray(x, self.dtype), kernel.astype(self.dtype)
        y = convolve(
            x,
            kernel,
            stride=self.stride,
            groups=self.groups,
            precision=self.precision,
            float32_result=self.float32_result,
        )
        if not self.use_bias:
            return y
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        return y + bias.astype(y.dtype)


@jax.custom_jvp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0), with derivative 0 at 0, computed from the result.

    `jax.nn.relu` needs the sign of x, for which XLA saves the output of the convolution before it,
    in addition to the result, which the next convolution saves anyway.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = relu(*primals)
    # y > 0 would be simplified to x > 0 by XLA.
    return y, jnp.where(y != 0, *tangents, 0)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3x3 max pooling of stride 2, padded with -inf by 1 on every side."""
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
