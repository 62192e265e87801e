"""Whether a run has a GPU or a TPU."""

import contextlib
from collections.abc import Iterator

import jax

from retinanet_jax.runtime.find_processes import Launch, ProcessesError

_assumed = False


@contextlib.contextmanager
def assume_accelerator() -> Iterator[None]:
    """Within it, `has_accelerator` is True: a run is planned for a chip that is elsewhere."""
    global _assumed
    _assumed = True
    try:
        yield
    finally:
        _assumed = False


def has_accelerator() -> bool:
    """Whether JAX computes on something faster than a CPU.

    The question starts JAX's devices, and processes can no longer connect after that. One of
    several processes is therefore assumed to have an accelerator.
    """
    if _assumed:
        return True
    try:
        several = Launch().find() is not None
    except ProcessesError:  # raised again when the processes connect
        several = True
    return several or jax.default_backend() != "cpu"
