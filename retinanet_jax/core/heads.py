"""RetinaNet's class and box heads (Lin et al. 2017, section 4), each shared by all levels."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from retinanet_jax.core.differentiation import needs_any_derivative
from retinanet_jax.core.initialization import KernelInit
from retinanet_jax.core.layers import Conv, relu
from retinanet_jax.core.norms import Norm


def prior_bias(prior: float) -> float:
    """The logit of the prior probability of an object: -log((1 - prior) / prior)."""
    return -math.log((1 - prior) / prior)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _round_gradient(values: Float[Array, "b n v"], dtype: Any) -> Float[Array, "b n v"]:
    """The values; a GPU rounds their gradient to dtype.

    The gradients of the output convolution are computed in dtype. Without this, XLA writes the
    gradient of the loss in float32, and reads it again to round it and to sum that of the bias.
    """
    return values


def _rounded_gradient(dtype: Any, _: None, gradient: Array) -> tuple[Array]:
    same = lambda g: g  # noqa: E731
    # The barrier makes the compiler store the rounded gradient.
    rounded = lambda g: jax.lax.optimization_barrier(g.astype(dtype)).astype(g.dtype)  # noqa: E731
    return (jax.lax.platform_dependent(gradient, cpu=same, tpu=same, default=rounded),)


_round_gradient.defvjp(lambda values, dtype: (values, None), _rounded_gradient)


class Head(nn.Module):
    """A tower of depth x (3x3 convolution, norm, ReLU) and a 3x3 output convolution.

    The output has values_per_anchor channels per anchor, flattened in the order H, W, A: [b h*w*a
    v], in float32 whatever dtype is: bfloat16 would leave few distinct scores. A head that predicts
    the centre-ness has a second output convolution, whose value follows those of each anchor.
    Weights are initialised by normal(0.01), those of the outputs by normal(output_std), their bias
    by output_bias (the prior for classes, 0 for boxes). norm 'group' is GroupNorm(32, 1e-5) after
    convolutions without bias; 'none' is a bias alone.
    """

    anchors_per_location: int
    values_per_anchor: int
    depth: int = 4
    channels: int = 256
    norm: str = "none"
    output_bias: float = 0.0
    output_std: float = 0.01
    predicts_centerness: bool = False
    dtype: Any = jnp.float32
    precision: str = "default"

    def setup(self):
        new_conv = functools.partial(
            Conv,
            kernel_size=3,
            kernel_init=KernelInit("normal", 0.01),
            dtype=self.dtype,
            precision=self.precision,
        )
        normed = self.norm == "group"
        self.convs = [
            new_conv(self.channels, use_bias=not normed, name=f"conv{i}") for i in range(self.depth)
        ]
        self.norms = [
            Norm(self.channels, kind="group", dtype=self.dtype, name=f"norm{i}")
            for i in range(self.depth if normed else 0)
        ]
        new_output = functools.partial(
            new_conv,
            use_bias=True,
            kernel_init=KernelInit("normal", self.output_std),
            bias_init=nn.initializers.constant(self.output_bias),
            float32_result=True,
        )
        self.output = new_output(self.anchors_per_location * self.values_per_anchor)
        if self.predicts_centerness:
            self.centerness = new_output(self.anchors_per_location)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n v"]:
        for index, convolution in enumerate(self.convs):
            x = convolution(x)
            if self.norms:
                x = self.norms[index](x, train=False)
            x = relu(x)
        b, h, w, _ = x.shape
        anchors = h * w * self.anchors_per_location
        values = self.output(x).reshape(b, anchors, self.values_per_anchor)
        if self.predicts_centerness:
            centerness = self.centerness(x).reshape(b, anchors, 1)
            values = jnp.concatenate([values, centerness], axis=-1)
        if self.dtype == jnp.float32 or needs_any_derivative():
            return values
        return _round_gradient(values, self.dtype)
