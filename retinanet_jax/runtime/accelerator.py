"""Whether a run has a GPU or a TPU."""

import jax

from retinanet_jax.runtime.find_processes import Launch, ProcessesError


def has_accelerator() -> bool:
    """Whether JAX computes on something faster than a CPU.

    The question starts JAX's devices, and processes can no longer connect after that. One of
    several processes is therefore assumed to have an accelerator.
    """
    try:
        several = Launch().find() is not None
    except ProcessesError:  # raised again when the processes connect
        several = True
    return several or jax.default_backend() != "cpu"
