"""Batch norm and group norm, alone or folded into the convolution before them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.layers import Conv

NORM_KINDS = ("frozen_batch", "batch", "group")
NUM_GROUPS = 32


class Norm(nn.Module):
    """Batch norm or group norm as one multiply-add per channel, computed in float32.

    frozen_batch: running statistics, scale and bias are constants (stop_gradient), also in
    training.

    batch: training uses the statistics of the global batch (over all devices under jit) and updates
    the running statistics with the given momentum and, like torch, the unbiased variance; pass
    mutable=["batch_stats"]. Inference uses the running statistics.

    group: GroupNorm with 32 groups (Wu & He 2018), without running statistics.

    'params' contains scale and bias, 'batch_stats' mean and var. Both batch kinds have the same
    variables, so the weights of one load into the other. The result is in dtype.
    """

    features: int
    kind: str
    epsilon: float | int = 1e-5
    momentum: float | int = 0.1  # torch's: new = (1 - momentum) * old + momentum * batch
    dtype: Any = jnp.float32

    def setup(self):
        shape = (self.features,)
        self.scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        self.bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if self.kind != "group":
            self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
            self.var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        x = x.astype(jnp.float32)
        return _multiply_add(
            x, *(self.running(train) or self._affine(*self._moments(x))), self.dtype
        )

    def running(self, train: bool) -> tuple[Float[Array, "c"], Float[Array, "c"]] | None:
        """Returns multiplier and offset of the running statistics; None if those of x are used."""
        if self.kind == "frozen_batch":
            return jax.lax.stop_gradient(self._affine(self.mean.value, self.var.value))
        if self.kind == "batch" and not train:
            return self._affine(self.mean.value, self.var.value)
        return None

    def _affine(self, mean: ArrayLike, var: ArrayLike) -> tuple[Array, Array]:
        multiplier = self.scale * jax.lax.rsqrt(var + self.epsilon)
        return multiplier, self.bias - mean * multiplier

    def _moments(self, x: Array) -> tuple[Array, Array]:
        """Mean and (biased) variance of x, which broadcast against it."""
        if self.kind == "group":
            return _group_moments(x)
        batch_mean, batch_var = _mean_and_variance(x, axes=(0, 1, 2))
        if not self.is_initializing():
            count = x.size // x.shape[-1]
            unbiased = batch_var * (count / max(count - 1, 1))
            self.mean.value = self._follow(self.mean.value, batch_mean)
            self.var.value = self._follow(self.var.value, unbiased)
        return batch_mean, batch_var

    def _follow(self, running: ArrayLike, batch: Array) -> Array:
        return (1 - self.momentum) * running + self.momentum * jax.lax.stop_gradient(batch)


def convolve_and_norm(
    conv: Conv, norm: Norm, x: Float[ArrayLike, "b h w c"], train: bool
) -> Float[Array, "b h2 w2 d"]:
    """Computes norm(conv(x)) for a convolution without bias.

    A norm with running statistics is a multiply-add by constants. GPUs and TPUs multiply the kernel
    instead of the result: convolution, offset and ReLU are one kernel of cuDNN, and gradients need
    no further pass over the activations. On a CPU, this saves nothing, and the multiplied kernels
    cost time and memory.
    """
    constants = norm.running(train)
    if constants is None:
        return norm(conv(x), train)
    multiplier, offset = constants
    of_kernel = jax.lax.platform_dependent(multiplier, cpu=jnp.ones_like, default=lambda m: m)
    y = conv(x, of_kernel)
    return jax.lax.platform_dependent(
        y,
        multiplier,
        offset,
        cpu=lambda y, m, o: _multiply_add(y, m, o, norm.dtype),
        default=lambda y, _, o: y + o.astype(y.dtype),
    )


def _multiply_add(x: Array, multiplier: Array, offset: Array, dtype: Any) -> Array:
    return (x.astype(jnp.float32) * multiplier + offset).astype(dtype)


def _mean_and_variance(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """In two passes; E[x^2] - E[x]^2 would lose precision where the mean is far from 0."""
    mean = x.mean(axes, keepdims=True)
    return mean.reshape(-1), jnp.square(x - mean).mean(axes)


def _group_moments(x: Float[Array, "b h w c"]) -> tuple[Array, Array]:
    mean = _average_groups(x.mean((1, 2), keepdims=True))
    return mean, _average_groups(jnp.square(x - mean).mean((1, 2), keepdims=True))


def _average_groups(values: Float[Array, "b 1 1 c"]) -> Float[Array, "b 1 1 c"]:
    """Replaces the value of each channel by the average of its group."""
    grouped = values.reshape(values.shape[0], NUM_GROUPS, -1).mean(-1)
    return jnp.repeat(grouped, values.shape[-1] // NUM_GROUPS, axis=-1)[:, None, None, :]
