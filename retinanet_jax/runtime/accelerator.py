"""Whether a run has a GPU or a TPU."""

import jax

from retinanet_jax.runtime.launch import Launch


def has_accelerator() -> bool:
    """Whether JAX computes on something faster than a CPU.

    The question starts JAX's devices, and processes can no longer connect after that. One of
    several processes is therefore assumed to have an accelerator.
    """
    return Launch().find() is not None or jax.default_backend() != "cpu"
