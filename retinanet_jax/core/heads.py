"""RetinaNet's class and box heads (Lin et al. 2017, section 4), each shared by all levels."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from retinanet_jax.core.box_distribution import deltas_of
from retinanet_jax.core.box_outputs import BoxOutputs
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
    v], in float32 for every dtype, because bfloat16 would leave few distinct scores. Weights are
    initialised with normal(0.01), weights of the output with normal(output_std), and its bias with
    output_bias (the prior for classes, 0 for boxes). norm 'group' is GroupNorm(32, 1e-5) after
    convolutions without bias; 'none' is only a bias.
    """

    anchors_per_location: int
    values_per_anchor: int
    depth: int = 4
    channels: int = 256
    norm: str = "none"
    output_bias: float = 0.0
    output_std: float = 0.01
    dtype: Any = jnp.float32
    precision: str = "default"

    def setup(self):
        new_conv = functools.partial(self._new_conv, kernel_init=KernelInit("normal", 0.01))
        normed = self.norm == "group"
        self.convs = [
            new_conv(self.channels, use_bias=not normed, name=f"conv{i}") for i in range(self.depth)
        ]
        self.norms = [
            Norm(self.channels, kind="group", dtype=self.dtype, name=f"norm{i}")
            for i in range(self.depth if normed else 0)
        ]
        self.output = self._new_output(self.values_per_anchor)

    def _new_conv(self, channels: int, **options: Any) -> Conv:
        return Conv(channels, kernel_size=3, dtype=self.dtype, precision=self.precision, **options)

    def _new_output(self, values: int) -> Conv:
        return self._new_conv(
            self.anchors_per_location * values,
            use_bias=True,
            kernel_init=KernelInit("normal", self.output_std),
            bias_init=nn.initializers.constant(self.output_bias),
            float32_result=True,
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n v"]:
        return self._by_anchor(self.output(self._tower(x)))

    def _tower(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        for index, convolution in enumerate(self.convs):
            x = convolution(x)
            if self.norms:
                x = self.norms[index](x, train=False)
            x = relu(x)
        return x

    def _by_anchor(self, outputs: Float[Array, "b h w av"]) -> Float[Array, "b n v"]:
        b, h, w, channels = outputs.shape
        anchors = h * w * self.anchors_per_location
        values = outputs.reshape(b, anchors, channels // self.anchors_per_location)
        if self.dtype == jnp.float32 or needs_any_derivative():
            return values
        return _round_gradient(values, self.dtype)


class BoxHead(Head):
    """A head that returns the deltas of boxes, and what else it predicts.

    With predicts_centerness, a second output convolution gives the centre-ness (centerness.py).
    With bins, the output has a distribution over so many steps for each side of a box, 4 * bins
    values per anchor in place of 4; the deltas follow from it (box_distribution.py).
    """

    predicts_centerness: bool = False
    bins: int = 0

    def setup(self):
        super().setup()
        if self.predicts_centerness:
            self.centerness = self._new_output(1)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n 4"] | BoxOutputs:
        """The deltas [b n 4] where the head predicts nothing else."""
        x = self._tower(x)
        outputs = self._by_anchor(self.output(x))
        if not (self.bins or self.predicts_centerness):
            return outputs
        rated = self._by_anchor(self.centerness(x))[..., 0] if self.predicts_centerness else None
        if not self.bins:
            return BoxOutputs(outputs, rated)
        distributions = outputs.reshape(*outputs.shape[:2], 4, self.bins)
        return BoxOutputs(deltas_of(distributions), rated, distributions)
