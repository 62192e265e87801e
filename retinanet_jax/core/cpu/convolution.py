"""Convolutions, by what each platform does fastest.

GPUs and TPUs have plain convolutions, forward and backward. On CPUs, XLA's gradients by a kernel
are up to four times slower than they need to be (docs/performance.md), and its 3x3 convolutions
multiply directly. There, where it pays, kernels of 1x1 get their gradients as matrix products, and
3x3 kernels are Winograd's. The platform is chosen when a function is lowered, so that one traced on
a machine without a GPU is the GPU's all the same; a function exported for several has all of them.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from retinanet_jax.core.cpu.winograd import winograd_convolve

Function = Callable[[Array, Array], Array]

# Below, transforming the tiles or the kernel takes longer than the multiplications it spares.
LEAST_CHANNELS, LEAST_TILES = 128, 64


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c_of_group d"],
    *,
    stride: int,
    groups: int = 1,
) -> Float[Array, "b h2 w2 d"]:
    """A convolution padded by k // 2 on every side; h2 = ceil(h / stride).

    x and kernel have the same dtype, which the result has too. Reverse mode only
    (`jax.custom_vjp`) where a CPU has a way of its own.
    """
    plain = functools.partial(_plain, stride=stride, groups=groups)
    known = all(isinstance(size, int) for size in x.shape)  # no symbolic shapes of jax.export
    if not known or x.size == 0 or x.dtype != jnp.float32 or groups > 1:
        return plain(x, kernel)
    if kernel.shape[0] == 1:
        return _by_platform(x, kernel, functools.partial(_matrix_product, stride=stride), plain)
    if kernel.shape[0] == 3 and stride == 1 and _winograd_pays(x.shape, kernel.shape):
        return _by_platform(x, kernel, winograd_convolve, plain)
    return plain(x, kernel)


def _winograd_pays(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> bool:
    b, h, w, _ = x_shape
    tiles = b * -(-h // 2) * -(-w // 2)
    return min(kernel_shape[2:]) >= LEAST_CHANNELS and tiles >= LEAST_TILES


def _plain(x: Array, kernel: Array, *, stride: int, groups: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((kernel.shape[0] // 2,) * 2,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _matrix_product(x: Array, kernel: Array, *, stride: int) -> Array:
    x = x[:, ::stride, ::stride]
    # Of matrices the gradient by the kernel is a product; of more axes also a transposed copy.
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
    def gradients(function: Function) -> Callable[..., tuple[Array, Array]]:
        return lambda x, kernel, gradient: jax.vjp(function, x, kernel)[1](gradient)

    return lax.platform_dependent(
        *saved, gradient, cpu=gradients(on_cpu), default=gradients(elsewhere)
    )


# Not by differentiating platform_dependent: what all platforms save for their gradients would then
# be saved on each.
_by_platform.defvjp(_forward, _backward)
