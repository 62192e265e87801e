"""RetinaNet's class and box heads (Lin et al. 2017, section 4), each shared by all levels."""

import functools
import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from retinanet_jax.core.layers import Conv, Norm, relu


def prior_bias(prior: float) -> float:
    """The logit of the prior probability of an object: -log((1 - prior) / prior)."""
    return -math.log((1 - prior) / prior)


class Head(nn.Module):
    """depth x (3x3 convolution, norm, ReLU) and a 3x3 output of values_per_anchor for every anchor.

    The output's channels are (anchor, value), flattened in the order H, W, A: [b h*w*a v], in the
    module's dtype (the loss and the decoding turn it into float32). All weights start at
    normal(0.01), those of the output at normal(output_std). norm 'group' is GroupNorm(32, 1e-5)
    behind convolutions without bias, 'none' a bias alone. output_bias is the start of the output's
    bias: the prior for classes, 0 for boxes.
    """

    anchors_per_location: int
    values_per_anchor: int
    depth: int = 4
    channels: int = 256
    norm: str = "none"
    output_bias: float = 0.0
    output_std: float = 0.01
    dtype: Any = jnp.float32

    def setup(self):
        new_conv = functools.partial(
            Conv, kernel_size=3, kernel_init=nn.initializers.normal(0.01), dtype=self.dtype
        )
        normed = self.norm == "group"
        self.convs = [
            new_conv(self.channels, use_bias=not normed, name=f"conv{i}") for i in range(self.depth)
        ]
        self.norms = [
            Norm(kind="group", dtype=self.dtype, name=f"norm{i}")
            for i in range(self.depth if normed else 0)
        ]
        self.output = new_conv(
            self.anchors_per_location * self.values_per_anchor,
            use_bias=True,
            kernel_init=nn.initializers.normal(self.output_std),
            bias_init=nn.initializers.constant(self.output_bias),
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n v"]:
        for index, convolution in enumerate(self.convs):
            x = convolution(x)
            if self.norms:
                x = self.norms[index](x, train=False)
            x = relu(x)
        b, h, w, _ = x.shape
        anchors = h * w * self.anchors_per_location
        return self.output(x).reshape(b, anchors, self.values_per_anchor)
