"""3x3 convolutions of stride 1 with 4 times fewer multiplications: Winograd's F(4x4, 3x3).

As F(2x2, 3x3) in winograd.py, with tiles of 4x4 outputs: 36 multiplications instead of 144, one for
each of the 36 places of a 6x6 square. There are 36 matrices of the kernel instead of 16, so that it
needs more tiles before it is faster. Forward only: the gradient by the kernel, which reads and
writes 36 sums for each band, gains nothing.

The matrices belong to five points and infinity (Cook and Toom): A^T and G evaluate polynomials
there, B^T is the transposed interpolation. The paper has the points 0, +-1, +-2. 0, +-3/4, +-3/2
have a third of their error, and all numbers of A and B are exact in float32. The tests compare with
float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from retinanet_jax.core.cpu.winograd_places import Index, get, put, transform, zero_after

TILES_AT_ONCE = 100  # with 256 channels: 3.7 MB of products

Blocks = Float[Array, "_ _ 4 _ 4 _"]  # an image cut into squares of 4x4
Wide = Float[Array, "6 _ _ 4 _ _"]  # the lines of a band, transformed
Places = Float[Array, "6 6 ..."]  # of tiles or of a kernel


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T [4 6], G [6 3] and B^T [6 6]; infinity is the last place."""
    points = np.array([0, 0.75, -0.75, 1.5, -1.5])
    others = [np.delete(points, i) for i in range(5)]
    scales = np.array([np.prod(point - rest) for point, rest in zip(points, others, strict=True)])
    powers = points[:, None] ** np.arange(4)
    a = np.vstack([powers, [0, 0, 0, 1]]).T
    g = np.vstack([powers[:, :3] / scales[:, None], [0, 0, 1]])
    # Coefficients of the polynomials that are zero at the other points, lowest power first.
    b = [*(np.append(np.poly(rest)[::-1], 0) for rest in others), np.poly(points)[::-1]]
    return a.astype(np.float32), g.astype(np.float32), np.array(b, np.float32)


class Taps(NamedTuple):
    """The nonzero values of each row of a matrix and their columns, filled up with zeros."""

    columns: np.ndarray
    values: np.ndarray


def _taps(matrix: np.ndarray) -> Taps:
    count = np.count_nonzero(matrix, axis=1).max()
    columns = np.argsort(matrix == 0, axis=1, kind="stable")[:, :count]
    return Taps(columns.astype(np.int32), np.take_along_axis(matrix, columns, axis=1))


A, G, B = _matrices()
INPUT, OUTPUT = _taps(B), _taps(A)


@jax.jit  # traced once per shape; the compiler inlines it
def convolve_4x4(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "b h w d"]:
    """The convolution, padded by 1 on every side; without gradients."""
    rows, bands = _split(x)
    b, columns, c, d = x.shape[0], -(-x.shape[2] // 4), *kernel.shape[2:]
    places = transform(G, kernel, zero_after(x)).reshape(6, 6, c, d)
    blocks = _blocks(x, rows * bands, columns)

    def fill_band(band: Index, carry: tuple[Wide, Places, Blocks]) -> tuple[Wide, Places, Blocks]:
        wide, products, y = carry
        wide = _along_width(wide, blocks, rows * band)

        def multiply(row: Index, products: Places) -> Places:
            return put(products, _along_height(wide, row) @ get(places, row), row)

        products = lax.fori_loop(0, 6, multiply, products)
        # Back along the height: four rows of six columns of each tile.
        halves = jnp.tensordot(A, products, 1).reshape(24, *products.shape[2:])
        return wide, products, _fill(y, halves, rows * band)

    tiles, zero = b * rows * columns, zero_after(places)
    shapes = (
        (6, b, rows + 1, 4, columns, c),
        (6, 6, tiles, d),
        (b, rows * bands, 4, columns, 4, d),
    )
    start = tuple(jnp.full(shape, zero) for shape in shapes)
    y = lax.fori_loop(0, bands, fill_band, start)[-1]
    return y.reshape(b, 4 * rows * bands, 4 * columns, d)[:, : x.shape[1], : x.shape[2]]


def _split(x: Array) -> tuple[int, int]:
    """Tile rows of a band, and the number of bands."""
    tile_rows, tiles_across = -(-x.shape[1] // 4), x.shape[0] * -(-x.shape[2] // 4)

    def cost(rows: int) -> int:
        """In tiles: those of all bands, also below the image, and the start of each band."""
        return -(-tile_rows // rows) * (rows * tiles_across + TILES_AT_ONCE // 10)

    most = min(tile_rows, max(1, TILES_AT_ONCE // tiles_across))
    rows = min(range(1, most + 1), key=cost)
    return rows, -(-tile_rows // rows)


def _blocks(x: Array, tile_rows: int, tile_columns: int) -> Blocks:
    """Pads with zeros on every side, and below and right to one block more than there are tiles."""
    b, h, w, c = x.shape
    rows, columns = tile_rows + 1, tile_columns + 1
    x = jnp.pad(x, ((0, 0), (1, 4 * rows - h - 1), (1, 4 * columns - w - 1), (0, 0)))
    return x.reshape(b, rows, 4, columns, 4, c)


def _sum(taps: Taps, row: Index, value_at: Callable[[Index], Array]) -> Array:
    """A row of a matrix times a line of values."""
    columns, values = (jnp.asarray(each)[row] for each in taps)
    return sum(values[i] * value_at(columns[i]) for i in range(taps.columns.shape[1]))


def _along_width(wide: Wide, blocks: Blocks, start: Index) -> Wide:
    """Places of the lines of a band of tiles, which begins in row `start` of the blocks."""
    _, b, rows, _, columns, c = wide.shape

    def transform_lines(place: Index, wide: Wide) -> Wide:
        def pixel(column: Index) -> Array:
            at = (0, start, 0, column >> 2, column & 3, 0)
            size = (b, rows, 4, columns, 1, c)
            return lax.dynamic_slice(blocks, at, size, allow_negative_indices=False)

        return put(wide, _sum(INPUT, place, pixel).reshape(wide.shape[1:]), place)

    return lax.fori_loop(0, 6, transform_lines, wide)


def _along_height(wide: Wide, row: Index) -> Float[Array, "6 tiles c"]:
    """A row of places of all tiles of a band."""
    _, b, rows, _, columns, c = wide.shape

    def pixel(line: Index) -> Array:
        at = (0, 0, line >> 2, line & 3, 0, 0)
        size = (6, b, rows - 1, 1, columns, c)
        return lax.dynamic_slice(wide, at, size, allow_negative_indices=False)

    return _sum(INPUT, row, pixel).reshape(6, -1, c)


def _fill(y: Blocks, halves: Array, start: Index) -> Blocks:
    """Writes the outputs of a band of tiles into y, from four rows of six columns of each tile."""
    b, _, _, columns, _, channels = y.shape

    def fill(output: Index, y: Blocks) -> Blocks:
        row, column = output >> 2, output & 3
        values = _sum(OUTPUT, column, lambda place: get(halves, 6 * row + place))
        values = values.reshape(b, -1, 1, columns, 1, channels)
        at = (0, start, row, 0, column, 0)
        return lax.dynamic_update_slice(y, values, at, allow_negative_indices=False)

    return lax.fori_loop(0, 16, fill, y)
