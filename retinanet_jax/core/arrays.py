"""Types for signatures: arrays of JAX or NumPy, and numbers."""

import numpy as np
from jaxtyping import Array, Float

ArrayLike = Array | np.ndarray
Scalar = float | int | np.number | Float[ArrayLike, ""]
