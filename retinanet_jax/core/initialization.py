"""Initial kernels: their distributions, and a way to draw all of them at once.

In Flax's `init`, JAX draws each kernel with separate code, whose compilation took a fifth of the
CPU time until the first step of a ResNet-50. `Initializer` draws from the same distributions with
NumPy and passes the kernels to `init` as arguments.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Float32, UInt32

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.differentiation import any_derivative

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class KernelInit:
    """Distribution of the initial values of a kernel, with mean 0; a Flax initializer.

    The standard deviation is gain / sqrt(fan). The fan is the number of inputs of an output ('in'),
    of outputs of an input ('out'), or 1 ('none').
    """

    distribution: str
    """Kind of the distribution: normal or uniform."""
    gain: float
    fan: str = "none"

    def __call__(self, key: Array, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        """Draws with JAX; within `Initializer`, returns the kernel that was drawn already."""
        if given := _given.get():
            return given(self, shape)
        if self.distribution == "normal":
            return self.deviation(shape) * jax.random.normal(key, shape, dtype)
        limit = math.sqrt(3) * self.deviation(shape)
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    def draw(self, rng: np.random.Generator, shape: Shape) -> Float32[np.ndarray, "..."]:
        """Draws with NumPy."""
        deviation = np.float32(self.deviation(shape))
        if self.distribution == "normal":
            return deviation * rng.standard_normal(shape, np.float32)
        return deviation * np.float32(math.sqrt(3)) * (2 * rng.random(shape, np.float32) - 1)

    def deviation(self, shape: Shape) -> float:
        """Returns the standard deviation of a kernel [k k c d]."""
        fans = {"in": math.prod(shape[:-1]), "out": math.prod(shape) / shape[-2], "none": 1}
        return self.gain / math.sqrt(fans[self.fan])


HE_NORMAL = KernelInit("normal", math.sqrt(2), "out")
XAVIER_UNIFORM = KernelInit("uniform", 1.0, "in")


class Drawn(NamedTuple):
    """The random numbers from which the initial variables of a model are built."""

    seed: UInt32[ArrayLike, ""]
    """Seed for initializers other than KernelInit, which a custom backbone may have."""
    kernels: tuple[Float32[ArrayLike, "..."], ...]
    """Kernels in the order in which the modules of the model are called."""


class Initializer:
    """Random initial variables of a model, float32; the same on all platforms.

    >>> initializer = Initializer(model)                                    # doctest: +SKIP
    >>> variables = jax.jit(initializer.variables)(initializer.draw(seed))  # doctest: +SKIP

    Attributes:
        variable_shapes: shapes of `variables`, as ShapeDtypeStructs.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._requests: list[tuple[KernelInit, Shape]] = []

        def record(init: KernelInit, shape: Shape) -> Array:
            self._requests.append((init, shape))
            return jnp.zeros(shape)

        with _giving(record):
            self.variable_shapes = variable_shapes(model)

    def draw(self, seed: int) -> Drawn:
        """Draws the kernels of a seed; only the lowest 32 bits of an int count."""
        seed &= 0xFFFFFFFF
        kernels = (
            init.draw(np.random.default_rng([seed, index]), shape)
            for index, (init, shape) in enumerate(self._requests)
        )
        return Drawn(np.uint32(seed), tuple(kernels))

    def shapes(self) -> Drawn:
        """Returns the shapes of `draw`'s result."""
        kernels = (jax.ShapeDtypeStruct(shape, jnp.float32) for _, shape in self._requests)
        return Drawn(jax.ShapeDtypeStruct((), jnp.uint32), tuple(kernels))

    def variables(self, drawn: Drawn) -> dict[str, Any]:
        """Returns the variables of the model; call it within `jax.jit`."""
        kernels = iter(drawn.kernels)
        with _giving(lambda init, shape: next(kernels)):
            return _init(self._model, drawn.seed)


def variable_shapes(model: nn.Module) -> dict[str, Any]:
    """Returns the shapes of a model's variables, as ShapeDtypeStructs."""
    return jax.eval_shape(functools.partial(_init, model), np.uint32(0))


def _init(model: nn.Module, seed: UInt32[ArrayLike, ""]) -> dict[str, Any]:
    # Variables depend neither on the size of the image nor on the algorithms of convolutions: here
    # JAX traces the shortest ones.
    with any_derivative():
        return model.init(jax.random.key(seed), jnp.zeros((1, 64, 64, 3)), train=False)


_Giver = Callable[[KernelInit, Shape], ArrayLike]
_given: contextvars.ContextVar[_Giver | None] = contextvars.ContextVar("given", default=None)


@contextlib.contextmanager
def _giving(giver: _Giver) -> Iterator[None]:
    token = _given.set(giver)
    try:
        yield
    finally:
        _given.reset(token)
