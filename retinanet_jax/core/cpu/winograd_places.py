"""What Winograd's algorithms of all tile sizes share: places of tiles, and their order in time."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Index = Array | int


def zero_after(array: Array) -> Array:
    """Zero, which the compiler cannot compute before `array`.

    Otherwise everything that depends on weights and constants alone would be computed at the start
    of a step for all layers, and occupy memory until it is used.

    XLA compiles equal kernels once, but makes what computes `array` part of the kernels that use
    zero, and these differ then. The result of a matrix product stays apart.
    """
    return jnp.minimum(jnp.isnan(array[(0,) * array.ndim]), 0).astype(array.dtype)


def get(places: Float[Array, "n ..."], place: Index) -> Array:
    """places[place]"""
    return lax.dynamic_index_in_dim(places, place, keepdims=False, allow_negative_indices=False)


def put(places: Float[Array, "n ..."], value: Array, place: Index) -> Array:
    """`places` with `value` at `place`."""
    return lax.dynamic_update_index_in_dim(
        places, value, place, axis=0, allow_negative_indices=False
    )


def transform(matrix: np.ndarray, square: Array, zero: Array | float = 0.0) -> Array:
    """matrix square matrix^T, where the square's rows follow one another: [n*n c d]."""
    both_ways, rest = np.kron(matrix, matrix) + zero, square.shape[-2:]
    return jnp.tensordot(both_ways, square.reshape(-1, *rest), 1)
