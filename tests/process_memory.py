"""The memory of the process that runs the tests."""

import ctypes
import gc
import os
from pathlib import Path

import golden_models
import jax


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    """Returns freed memory, of a compilation for example, to the system."""
    gc.collect()
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def release() -> None:
    """Drops what tests have cached, compiled programs above all."""
    golden_models.forget_state_dicts()
    jax.clear_caches()
    trim()
