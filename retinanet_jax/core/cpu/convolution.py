"""`convolve`: the convolution of every layer, by the fastest method of each platform.

GPUs and TPUs run XLA's convolutions, forward and backward. On CPUs XLA computes kernel gradients up
to four times slower than necessary (docs/performance.md), 3x3 convolutions directly, and grouped
ones one number at a time. There, float32 1x1 convolutions become matrix products, large 3x3 ones
use Winograd's algorithm, and grouped ones are computed in blocks of groups. The platform is
selected at lowering: a function traced on a CPU machine and lowered for a GPU contains the GPU's
convolutions, and one exported for several platforms contains all of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from retinanet_jax.core.cpu.direct import direct_convolve
from retinanet_jax.core.cpu.grouped import grouped_convolve
from retinanet_jax.core.cpu.winograd import winograd_convolve
from retinanet_jax.core.differentiation import needs_any_derivative

Function = Callable[[Array, Array], Array]

# Equal functions are one object, so that JAX traces each of them once per shape and not per layer.
_partial = functools.cache(functools.partial)

# Below these sizes, Winograd's transforms cost more than the multiplications that they save.
LEAST_CHANNELS, LEAST_TILES, LEAST_VALUES = 64, 64, 128 * 128


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c_of_group d"],
    *,
    stride: int,
    groups: int = 1,
    precision: str = "default",
    float32_result: bool = False,
) -> Float[Array, "b h2 w2 d"]:
    """A convolution padded by k // 2 on every side; h2 = ceil(h / stride).

    Reverse-mode differentiation only (`jax.custom_vjp`) outside of `any_derivative()`.

    Args:
      x: input.
      kernel: of the same dtype as x.
      stride: in both directions.
      groups: the input's channels are divided into this many.
      precision: of float32 products on GPU and TPU: 'default', 'high' or 'highest'.
      float32_result: returns the sums as float32 whatever x.dtype is; gradients are computed in
        x.dtype. Otherwise the result has x.dtype.
    """
    precision = None if precision == "default" else precision  # None: JAX's own default
    plain = _partial(_plain, stride=stride, groups=groups, precision=precision)
    if needs_any_derivative():
        return plain(x, kernel, preferred_element_type=jnp.float32 if float32_result else None)
    if float32_result and x.dtype != jnp.float32:
        return _with_float32_result(x, kernel, plain)
    known = all(isinstance(size, int) for size in x.shape)  # no symbolic shapes of jax.export
    if not known or x.size == 0 or x.dtype != jnp.float32:
        return plain(x, kernel)
    if groups > 1:
        on_cpu = _partial(grouped_convolve, stride=stride, groups=groups)
        return _by_platform(x, kernel, on_cpu, plain)
    if kernel.shape[0] == 1:
        return _by_platform(x, kernel, _partial(_matrix_product, stride=stride), plain)
    if kernel.shape[0] == 3 and stride == 1 and _winograd_pays(x.shape, kernel.shape):
        return _by_platform(x, kernel, winograd_convolve, plain)
    return _by_platform(x, kernel, _partial(direct_convolve, stride=stride), plain)


def _winograd_pays(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> bool:
    b, h, w, _ = x_shape
    tiles = b * -(-h // 2) * -(-w // 2)
    channels = min(kernel_shape[2:])
    enough = tiles >= LEAST_TILES and tiles * channels >= LEAST_VALUES
    return channels >= LEAST_CHANNELS and enough


def _plain(
    x: Array,
    kernel: Array,
    *,
    stride: int,
    groups: int,
    precision: str | None,
    preferred_element_type: Any = None,
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((kernel.shape[0] // 2,) * 2,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _with_float32_result(x: Array, kernel: Array, plain: Callable[..., Array]) -> Array:
    return plain(x, kernel, preferred_element_type=jnp.float32)


def _float32_forward(
    x: Array, kernel: Array, plain: Callable[..., Array]
) -> tuple[Array, tuple[Array, Array]]:
    return _with_float32_result(x, kernel, plain), (x, kernel)


def _float32_backward(
    plain: Callable[..., Array], saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    # JAX's own rule would convert x and kernel to float32 and convolve those.
    return jax.vjp(plain, *saved)[1](gradient.astype(saved[0].dtype))


_with_float32_result.defvjp(_float32_forward, _float32_backward)


def _matrix_product(x: Array, kernel: Array, *, stride: int) -> Array:
    x = x[:, ::stride, ::stride]
    # As matrices, so that the kernel gradient is one product, without a transposed copy.
    product = x.reshape(-1, x.shape[3]) @ kernel[0, 0]
    return product.reshape(*x.shape[:3], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_platform(x: Array, kernel: Array, on_cpu: Function, elsewhere: Function) -> Array:
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _forward(
    x: Array, kernel: Array, on_cpu: Function, elsewhere: Function
) -> tuple[Array, tuple[Array, Array]]:
    return _by_platform(x, kernel, on_cpu, elsewhere), (x, kernel)


def _backward(
    on_cpu: Function, elsewhere: Function, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    return lax.platform_dependent(
        *saved, gradient, cpu=_gradients_of(on_cpu), default=_gradients_of(elsewhere)
    )


@functools.cache
def _gradients_of(function: Function) -> Callable[..., tuple[Array, Array]]:
    return lambda x, kernel, gradient: jax.vjp(function, x, kernel)[1](gradient)


# Differentiating platform_dependent itself would save, on each platform, the residuals of all.
_by_platform.defvjp(_forward, _backward)
