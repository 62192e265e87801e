"""3x3 convolutions of stride 1 with 2.25 times fewer multiplications: Winograd's F(2x2, 3x3).

Lavin and Gray, arXiv 1509.09308. Of a line of four values d, two outputs of a filter g of three are

    y = A^T [(G g) * (B^T d)],      * by element,

        [1  0 -1  0]        [1    0    0 ]
    B^T [0  1  1  0]     G  [1/2  1/2 1/2]     A^T [1 1  1  0]
        [0  1 -1  0]       [-1/2  1/2 -1/2]        [0 1 -1 -1]
        [0  1  0 -1]        [0    0    1 ]

with four multiplications instead of six (the paper's third row of G and B^T has the other sign). In
two dimensions, a tile of 2x2 outputs takes 16 multiplications instead of 36, one for each of the 16
places of a 4x4 square. Summed over the input channels, the elementwise product becomes a matrix
product over all tiles for each place. The paper finds smaller errors than those of direct sums in
float32; the tests compare with float64.

The gradients are convolutions of the same cost. By the input: the gradient of the outputs convolved
with the kernel rotated by 180 degrees. By the kernel, since y is linear in g: G^T [(A dy) * (B^T
d)], summed over tiles.

Where there are enough tiles, the result itself is computed by tiles of 4x4 outputs: see
winograd_4x4.py.

An image is processed in bands of tile rows, so that intermediate results stay in the cache. One
loop runs over the places; with an unrolled loop, a network took twice as long to compile.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from retinanet_jax.core.cpu.winograd_4x4 import convolve_4x4
from retinanet_jax.core.cpu.winograd_places import Index, get, put, transform, zero_after

TILES_AT_ONCE = 400  # with 256 channels: 6.6 MB of products

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [-0.5, 0.5, -0.5], [0, 0, 1]], np.float32)

Squares = Float[Array, "_ _ 2 _ 2 _"]  # an image cut into squares of 2x2
Places = Float[Array, "16 ..."]  # of tiles or of a kernel, row by row


@jax.custom_vjp
@jax.jit  # traced once per shape; the compiler inlines it
def winograd_convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "b h w d"]:
    """The convolution, padded by 1 on every side; reverse mode only (`jax.custom_vjp`)."""
    if _tiles_of_4x4_pay(x.shape, kernel.shape):
        return convolve_4x4(x, kernel)
    rows, bands = _split(x)
    places = transform(G, kernel, zero_after(x))
    squares = _squares(x, rows * bands)

    def fill_band(band: Index, carry: tuple[Places, Squares]) -> tuple[Places, Squares]:
        def multiply(place: Index, products: Places) -> Places:
            inputs = _transform_input(squares, place, rows * band, rows)
            return put(products, inputs @ get(places, place), place)

        products, y = carry
        products = lax.fori_loop(0, 16, multiply, products)
        return products, _fill(y, products, rows * band)

    start = _zeros(x, kernel.shape[3], rows, bands, zero_after(places))
    _, y = lax.fori_loop(0, bands, fill_band, start)
    return _crop(y, x.shape)


def _convolve_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return winograd_convolve(x, kernel), (x, kernel)


@jax.jit
def _convolve_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """Both gradients in one loop, which compiles faster than two."""
    x, kernel = saved
    rows, bands = _split(x)
    turned = transform(G[:, ::-1], kernel, zero_after(gradient))
    zero = zero_after(turned)
    squares, dy = _squares(x, rows * bands), _squares(gradient, rows * bands)

    def add_band(band: Index, carry: tuple[Places, Squares, Places]):
        def multiply(place: Index, carry: tuple[Places, Places]) -> tuple[Places, Places]:
            products, sums = carry
            around = _transform_input(dy, place, rows * band, rows)
            products = put(products, around @ get(turned, place).T, place)
            inputs = _transform_input(squares, place, rows * band, rows)
            outputs = _transform_gradient(dy, place, rows * band, rows)
            return products, put(sums, get(sums, place) + inputs.T @ outputs, place)

        products, dx, sums = carry
        products, sums = lax.fori_loop(0, 16, multiply, (products, sums))
        return products, _fill(dx, products, rows * band), sums

    start = *_zeros(x, x.shape[3], rows, bands, zero), jnp.full_like(turned, zero)
    _, dx, sums = lax.fori_loop(0, bands, add_band, start)
    return _crop(dx, x.shape), transform(G.T, sums).reshape(kernel.shape)


winograd_convolve.defvjp(_convolve_forward, _convolve_backward)


def _tiles_of_4x4_pay(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> bool:
    """Whether there are enough tiles for the 36 matrices of the kernel."""
    b, h, w, _ = x_shape
    tiles = b * -(-h // 4) * -(-w // 4)
    return 6 * tiles >= min(kernel_shape[2:])


def _fill(y: Squares, products: Places, start: Index) -> Squares:
    """Writes the outputs of a band of tiles into y."""
    b, _, _, columns, _, channels = y.shape

    def fill(output: Index, y: Squares) -> Squares:
        row, column = output >> 1, output & 1
        values = _transform_back(products, row, column)
        values = values.reshape(b, -1, 1, columns, 1, channels)
        at = (0, start, row, 0, column, 0)
        return lax.dynamic_update_slice(y, values, at, allow_negative_indices=False)

    return lax.fori_loop(0, 4, fill, y)


def _zeros(x: Array, channels: int, rows: int, bands: int, zero: Array) -> tuple[Places, Squares]:
    """Buffers for the products of a band and for the whole result."""
    b, columns = x.shape[0], -(-x.shape[2] // 2)
    products = jnp.full((16, b * rows * columns, channels), zero)
    return products, jnp.full((b, rows * bands, 2, columns, 2, channels), zero)


def _crop(y: Squares, shape: tuple[int, ...]) -> Array:
    b, rows, _, columns, _, channels = y.shape
    return y.reshape(b, 2 * rows, 2 * columns, channels)[:, : shape[1], : shape[2]]


def _split(x: Array) -> tuple[int, int]:
    """Tile rows of a band, and the number of bands."""
    tile_rows, tiles_across = -(-x.shape[1] // 2), x.shape[0] * -(-x.shape[2] // 2)
    bands = min(tile_rows, -(-tile_rows * tiles_across // TILES_AT_ONCE))
    rows = -(-tile_rows // bands)
    return rows, -(-tile_rows // rows)


def _squares(x: Array, tile_rows: int) -> Squares:
    """Pads with zeros on every side, and below and right to whole tiles."""
    b, h, w, c = x.shape
    rows, columns = tile_rows + 1, -(-w // 2) + 1
    x = jnp.pad(x, ((0, 0), (1, 2 * rows - h - 1), (1, 2 * columns - w - 1), (0, 0)))
    return x.reshape(b, rows, 2, columns, 2, c)


def _value(x: Squares, row: Index, column: Index, start: Index, rows: int) -> Array:
    """One value of each tile of a band, [tiles c]; a 4x4 tile starts at every square."""
    b, _, _, columns, _, c = x.shape
    at = (0, start + (row >> 1), row & 1, column >> 1, column & 1, 0)
    size = (b, rows, 1, columns - 1, 1, c)
    return lax.dynamic_slice(x, at, size, allow_negative_indices=False).reshape(-1, c)


def _transform_input(x: Squares, place: Index, start: Index, rows: int) -> Array:
    """A place of B^T d B; in a line, place i is d[min(i, 1)] +- d[max(i, 2)]."""
    row, column = place >> 2, place & 3

    def sign(index: Index) -> Array:
        return jnp.where(index == 1, 1.0, -1.0)

    def along_width(at: Index) -> Array:
        first = _value(x, at, jnp.minimum(column, 1), start, rows)
        return first + sign(column) * _value(x, at, jnp.maximum(column, 2), start, rows)

    return along_width(jnp.minimum(row, 1)) + sign(row) * along_width(jnp.maximum(row, 2))


def _transform_gradient(dy: Squares, place: Index, start: Index, rows: int) -> Array:
    """A place of A dy A^T, for the 2x2 outputs in the middle of each tile."""

    def factors(index: Index) -> tuple[Array, Array]:
        """A row of A."""
        return jnp.where(index < 3, 1.0, 0.0), jnp.where(index < 2, 1.0 * index, -1.0)

    (top, bottom), (left, right) = factors(place >> 2), factors(place & 3)

    def along_width(at: int) -> Array:
        return left * _value(dy, at, 1, start, rows) + right * _value(dy, at, 2, start, rows)

    return top * along_width(1) + bottom * along_width(2)


def _transform_back(products: Places, row: Index, column: Index) -> Array:
    """An output of A^T m A; in a line, output i is m[i] +- (m[i + 1] + m[i + 2])."""

    def along_width(at: Index) -> Array:
        first, second, third = (get(products, 4 * at + column + more) for more in range(3))
        return first + (1.0 - 2.0 * column) * (second + third)

    first, second, third = (along_width(row + more) for more in range(3))
    return first + (1.0 - 2.0 * row) * (second + third)
