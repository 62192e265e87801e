"""Direct convolution on CPUs, with gradients that stay fast inside loops.

XLA runs a convolution by Eigen if its dimensions are in the order batch, space, channels. It brings
others into this order, but outside of loops only (its pass ConvCanonicalization). JAX's own
gradients have another order, and in the loop over the parts of a batch XLA computes those one
number at a time.
"""

import functools

import jax
from jax import lax
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def direct_convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], stride: int
) -> Float[Array, "b h2 w2 d"]:
    """A convolution padded by k // 2 on every side; h2 = ceil(h / stride)."""
    return _convolve(x, kernel, ((kernel.shape[0] // 2,) * 2,) * 2, stride=stride)


def _convolve(x: Array, kernel: Array, padding, *, stride=1, x_dilation=1, kernel_dilation=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        lhs_dilation=(x_dilation, x_dilation),
        rhs_dilation=(kernel_dilation, kernel_dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return direct_convolve(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    side = kernel.shape[0]
    before = side // 2
    # What the last window leaves over at the end of each side, its padding included.
    rest = [
        n + before - (m - 1) * stride
        for n, m in zip(x.shape[1:3], gradient.shape[1:3], strict=True)
    ]
    of_x = _convolve(
        gradient,
        kernel[::-1, ::-1].swapaxes(2, 3),
        [(side - 1 - before, n - 1) for n in rest],
        x_dilation=stride,
    )
    of_kernel = _convolve(
        x.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        [(before, side - n) for n in rest],
        kernel_dilation=stride,
    )
    return of_x, of_kernel.transpose(1, 2, 0, 3)


direct_convolve.defvjp(_forward, _backward)
