"""RetinaNet's class and box heads (Lin et al. 2017, section 4), each shared by all levels."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from retinanet_jax.core.box_distribution import deltas_of
from retinanet_jax.core.differentiation import needs_any_derivative
from retinanet_jax.core.initialization import KernelInit
from retinanet_jax.core.layers import Conv, relu
from retinanet_jax.core.norms import Norm


def prior_bias(prior: float) -> float:
    """Returns the logit of the prior probability of an object: -log((1 - prior) / prior)."""
    return -math.log((1 - prior) / prior)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _round_gradient(values: Float[Array, "b n v"], dtype: Any) -> Float[Array, "b n v"]:
    """The values; a GPU rounds their gradient to dtype.

    The gradients of the output convolution are computed in dtype. Without this, XLA writes the
    gradient of the loss in float32, and reads it again to round it and to sum that of the bias.
    """
    return values


def _rounded_gradient(dtype: Any, _: None, gradient: Array) -> tuple[Array]:
    def keep(gradient: Array) -> Array:
        return gradient

    def rounded(gradient: Array) -> Array:
        # The barrier makes the compiler store the rounded gradient.
        return jax.lax.optimization_barrier(gradient.astype(dtype)).astype(gradient.dtype)

    return (jax.lax.platform_dependent(gradient, cpu=keep, tpu=keep, default=rounded),)


_round_gradient.defvjp(lambda values, dtype: (values, None), _rounded_gradient)


class Head(nn.Module):
    """A tower of depth x (3x3 convolution, norm, ReLU) and a 3x3 output convolution.

    The output has values_per_anchor channels per anchor, flattened in the order H, W, A: [b h*w*a
    v], in float32 for every dtype, because bfloat16 would leave few distinct scores. A head that
    predicts the centre-ness has a second output convolution, whose value follows the other values
    of each anchor. With bins, the output has distributions of the sides of a box; their deltas come
    before both (box_outputs.py). Weights are initialised with normal(0.01), weights of the outputs
    with normal(output_std), and their bias with output_bias (the prior for classes, 0 for boxes).
    norm 'group' is GroupNorm(32, 1e-5) after convolutions without bias; 'none' is only a bias.
    """

    anchors_per_location: int
    values_per_anchor: int
    depth: int = 4
    channels: int = 256
    norm: str = "none"
    output_bias: float = 0.0
    output_std: float = 0.01
    predicts_centerness: bool = False
    bins: int = 0
    dtype: Any = jnp.float32
    precision: str = "default"

    @property
    def _channels_per_anchor(self) -> int:
        return self.values_per_anchor * max(self.bins, 1)

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
        self.output = new_output(self.anchors_per_location * self._channels_per_anchor)
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
        outputs = self.output(x).reshape(b, anchors, self._channels_per_anchor)
        parts = [outputs]
        if self.bins:
            parts = [deltas_of(outputs.reshape(b, anchors, 4, self.bins)), outputs]
        if self.predicts_centerness:
            parts.insert(1, self.centerness(x).reshape(b, anchors, 1))
        values = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
        if self.dtype == jnp.float32 or needs_any_derivative():
            return values
        return _round_gradient(values, self.dtype)
