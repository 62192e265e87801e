"""Grouped convolution on CPUs, as ResNeXt's 3x3 ones with 4 or 8 channels a group.

XLA computes their gradients one number at a time: 17.6 s for 512 channels in 32 groups and 4 images
of 40x40. Here, neighboring groups form a block of up to 32 channels, whose kernel is zero between
different groups, and one loop runs over the blocks. That multiplies up to 8 times as often as
necessary and takes .09 s (docs/performance_notes.md).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from retinanet_jax.core.cpu.direct import direct_convolve

BLOCK_CHANNELS = 32
"""16 take as long on average, 64 up to twice as long."""


def grouped_convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c_of_group d"],
    *,
    stride: int,
    groups: int,
) -> Float[Array, "b h2 w2 d"]:
    """A convolution padded by k // 2 on every side; h2 = ceil(h / stride)."""
    most = max(BLOCK_CHANNELS // kernel.shape[2], 1)
    groups_of_block = max(n for n in range(1, most + 1) if groups % n == 0)
    blocks = groups // groups_of_block
    outputs = lax.map(
        lambda block: direct_convolve(*block, stride),
        (_split_last(x, blocks), _block_kernels(kernel, blocks, groups_of_block)),
    )
    b, h, w = outputs.shape[1:4]
    return jnp.moveaxis(outputs, 0, 3).reshape(b, h, w, -1)


def _split_last(x: Float[Array, "... c"], parts: int) -> Float[Array, "parts ... c_of_part"]:
    return jnp.moveaxis(x.reshape(*x.shape[:-1], parts, -1), -2, 0)


def _block_kernels(
    kernel: Float[Array, "k k c_of_group d"], blocks: int, groups: int
) -> Float[Array, "blocks k k c_of_block d_of_block"]:
    """The kernel of each block of groups, zero from a group's inputs to another's outputs."""
    side, _, inputs, _ = kernel.shape
    by_group = kernel.reshape(side, side, inputs, blocks, groups, -1)
    same = jnp.eye(groups, dtype=kernel.dtype)
    spread = jnp.einsum("hwcbgd,fg->bhwfcgd", by_group, same)
    return spread.reshape(blocks, side, side, groups * inputs, -1)
