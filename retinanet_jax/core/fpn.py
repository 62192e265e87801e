"""Feature Pyramid Network (Lin et al. 2016) with RetinaNet's extra levels: no norm, no activation.

Initialisation is torchvision's: Xavier uniform over the fan-in (He uniform with a=1), bias 0.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from retinanet_jax.core.initialization import XAVIER_UNIFORM
from retinanet_jax.core.layers import Conv, relu


def upsample_to(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """Upsamples by 2 (nearest neighbour) and crops to size, as torch's `interpolate(size=...)`.

    The result equals torch's: stride-2 layers give h = ceil(h2 / 2), so h2 is 2h or 2h - 1.
    torch reads row floor(i * h / h2). For h2 = 2h - 1, this is floor(i / 2 + i / (4h - 2)), where
    the second term is below 1/2: the same rows as here.

    Raises:
      ValueError: size is not 2h or 2h - 1 by 2w or 2w - 1.
    """
    b, h, w, c = x.shape
    if (-(-size[0] // 2), -(-size[1] // 2)) != (h, w):
        raise ValueError(f"upsample_to: {size} is not twice {(h, w)}, nor one less")
    doubled = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return doubled.reshape(b, 2 * h, 2 * w, c)[:, : size[0], : size[1]]


class FPN(nn.Module):
    """Maps {level: C_level} to {level: P_level}, with extra levels up to max_level.

    Extra levels are 3x3 stride-2 convolutions. The input of the first is the top C level
    ('backbone') or the top P level ('fpn'), that of the others the level before, after a ReLU if
    relu_before_p7.
    """

    levels: tuple[int, ...]
    max_level: int
    channels: int = 256
    extra_levels_from: str = "backbone"
    relu_before_p7: bool = True
    dtype: Any = jnp.float32
    precision: str = "default"

    @nn.compact
    def __call__(self, features: dict[int, Array]) -> dict[int, Array]:
        new_conv = functools.partial(
            Conv,
            self.channels,
            use_bias=True,
            kernel_init=XAVIER_UNIFORM,
            dtype=self.dtype,
            precision=self.precision,
        )
        pyramid, merged = {}, None
        for level in reversed(self.levels):
            lateral = new_conv(kernel_size=1, name=f"lateral{level}")(features[level])
            above = 0 if merged is None else upsample_to(merged, lateral.shape[1:3])
            merged = lateral + above
            pyramid[level] = new_conv(kernel_size=3, name=f"output{level}")(merged)

        top = self.levels[-1]
        x = features[top] if self.extra_levels_from == "backbone" else pyramid[top]
        for level in range(top + 1, self.max_level + 1):
            if level > top + 1 and self.relu_before_p7:
                x = relu(x)
            x = new_conv(kernel_size=3, stride=2, name=f"p{level}")(x)
            pyramid[level] = x
        return dict(sorted(pyramid.items()))
