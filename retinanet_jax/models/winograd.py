"""3x3 convolutions of stride 1 with 2.25 times fewer multiplications: Winograd's F(2x2, 3x3).

Lavin and Gray, arXiv 1509.09308. Of a line of four values d, two outputs of a filter g of three are

    y = A^T [(G g) * (B^T d)],      * by element,

        [1  0 -1  0]        [1    0    0 ]
    B^T [0  1  1  0]     G  [1/2  1/2 1/2]     A^T [1 1  1  0]
        [0 -1  1  0]        [1/2 -1/2 1/2]         [0 1 -1 -1]
        [0  1  0 -1]        [0    0    1 ]

with four multiplications instead of six; in two dimensions 16 instead of 36 for a tile of 2x2
outputs. Summed over the input channels, the product by element is a matrix product over all tiles,
one for each of the 16 places. The paper finds errors below those of direct sums in float32
the tests hold ours to float64.

The gradients are convolutions as well, and cost as little. By the input: the gradient of the
outputs convolved with the kernel turned by 180 degrees, which in the transformed kernel swaps
places 0 and 3. By the kernel, since y is linear in g: G^T [(A dy) * (B^T d)], summed over tiles.

An image is worked off in bands of tile rows, so that what is between two steps stays in the cache.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

TILES_AT_ONCE = 400  # of 256 channels: 6.6 MB before the product and as much after it

Places = list[Array]  # the 16 places of tiles, or of a kernel, row by row
Line = Sequence[Array]


@jax.custom_vjp
@jax.jit  # traced once for each shape; the compiler puts it where it is called
def winograd_convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "b h w d"]:
    """The convolution, padded by 1 on every side; reverse mode only (`jax.custom_vjp`)."""
    return _products(x, _transform_kernel(kernel), contracted=0)


def _convolve_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return winograd_convolve(x, kernel), (x, kernel)


def _convolve_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return _input_gradient(kernel, gradient), _kernel_gradient(x, gradient)


winograd_convolve.defvjp(_convolve_forward, _convolve_backward)


@jax.jit
def _input_gradient(kernel: Array, gradient: Array) -> Array:
    places = _transform_kernel(kernel)
    turned = [places[4 * row + column] for row in (3, 1, 2, 0) for column in (3, 1, 2, 0)]
    return _products(gradient, turned, contracted=1)


@jax.jit
def _kernel_gradient(x: Array, gradient: Array) -> Array:
    rows, bands = _split(x)
    x, gradient = _pad(x, rows * bands, around=1), _pad(gradient, rows * bands, around=0)

    def add_band(index: Array | int, sums: Places) -> Places:
        inputs = _in_two_dimensions(_transform_input, _overlapping, _band(x, index, rows, 2))
        outputs = _in_two_dimensions(_transform_gradient, _halves, _band(gradient, index, rows, 0))
        return [
            total + lax.dot_general(a, b, (((0, 1, 2), (0, 1, 2)), ((), ())))
            for total, a, b in zip(sums, inputs, outputs, strict=True)
        ]

    zeros = jnp.zeros((x.shape[-1], gradient.shape[-1]), x.dtype)
    sums = lax.fori_loop(0, bands, add_band, [zeros] * 16)
    kernel = _both_ways(_transform_back_kernel, sums)
    return jnp.stack(kernel).reshape(3, 3, *zeros.shape)


def _products(x: Array, places: Places, contracted: int) -> Array:
    """Tiles of x times the places of a kernel, whose axis `contracted` belongs to x's channels."""
    b, h, w, _ = x.shape
    rows, bands = _split(x)
    x = _pad(x, rows * bands, around=1)
    channels = places[0].shape[1 - contracted]

    def fill_band(index: Array | int, result: Array) -> Array:
        inputs = _in_two_dimensions(_transform_input, _overlapping, _band(x, index, rows, 2))
        products = [
            lax.dot_general(a, place, (((3,), (contracted,)), ((), ())))
            for a, place in zip(inputs, places, strict=True)
        ]
        y = _both_ways(_transform_back, products)
        y = jnp.stack([jnp.stack(y[:2], axis=3), jnp.stack(y[2:], axis=3)], axis=2)
        y = y.reshape(b, 2 * rows, -1, channels)
        return lax.dynamic_update_slice_in_dim(result, y, 2 * rows * index, axis=1)

    empty = jnp.zeros((b, 2 * rows * bands, x.shape[2] - 2, channels), x.dtype)
    return lax.fori_loop(0, bands, fill_band, empty)[:, :h, :w]


def _split(x: Array) -> tuple[int, int]:
    """Tile rows of a band, and the number of bands."""
    tile_rows, tiles_across = -(-x.shape[1] // 2), x.shape[0] * -(-x.shape[2] // 2)
    bands = min(tile_rows, -(-tile_rows * tiles_across // TILES_AT_ONCE))
    rows = -(-tile_rows // bands)
    return rows, -(-tile_rows // rows)


def _pad(x: Array, tile_rows: int, around: int) -> Array:
    """`around` zeros on every side, and more below and right for whole tiles."""
    below, right = 2 * tile_rows - x.shape[1], x.shape[2] % 2
    return jnp.pad(x, ((0, 0), (around, around + below), (around, around + right), (0, 0)))


def _band(x: Array, index: Array | int, rows: int, more: int) -> Array:
    return lax.dynamic_slice_in_dim(x, 2 * rows * index, 2 * rows + more, axis=1)


def _overlapping(x: Array, axis: int) -> Line:
    """Values 0, 1, 2 and 3 of all tiles, which begin at every second value."""
    length = x.shape[axis] - 3
    return [lax.slice_in_dim(x, at, at + length, 2, axis) for at in range(4)]


def _halves(x: Array, axis: int) -> Line:
    """Values 0 and 1 of all tiles."""
    return [lax.slice_in_dim(x, at, None, 2, axis) for at in range(2)]


def _in_two_dimensions(
    transform: Callable[[Line], Line], cut: Callable[[Array, int], Line], x: Array
) -> Places:
    """Cuts and transforms along height, then along width."""
    return [place for row in transform(cut(x, 1)) for place in transform(cut(row, 2))]


def _both_ways(transform: Callable[[Line], Line], places: Places) -> Places:
    """Transforms the columns of the square of places, then its rows."""
    side = math.isqrt(len(places))
    columns = [transform(places[column::side]) for column in range(side)]
    return [value for row in zip(*columns, strict=True) for value in transform(row)]


def _transform_input(d: Line) -> Line:
    """B^T d."""
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _transform_gradient(dy: Line) -> Line:
    """A dy."""
    return dy[0], dy[0] + dy[1], dy[0] - dy[1], -dy[1]


def _transform_back(m: Line) -> Line:
    """A^T m."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _transform_kernel(kernel: Float[Array, "3 3 c d"]) -> Places:
    """G g along both axes."""

    def transform(g: Line) -> Line:
        ends, middle = (g[0] + g[2]) / 2, g[1] / 2
        return g[0], ends + middle, ends - middle, g[2]

    return _both_ways(transform, [kernel[i, j] for i in range(3) for j in range(3)])


def _transform_back_kernel(m: Line) -> Line:
    """G^T m."""
    ends, middle = (m[1] + m[2]) / 2, (m[1] - m[2]) / 2
    return m[0] + ends, middle, ends + m[3]
