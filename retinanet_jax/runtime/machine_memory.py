"""Memory of the machine: what is free within the limit of a container, what this process uses."""

import contextlib
import ctypes
import os
from pathlib import Path

from retinanet_jax.runtime.cores import available_cores

_M_ARENA_MAX = -8  # of glibc's malloc.h

# Files of cgroups, version 2 and 1: the limit and what is used of it.
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def available_memory() -> int:
    """Bytes that are available now."""
    return min([_free(), *_left_in_containers()])


def limit_arenas() -> None:
    """Makes glibc allocate from an arena per core, where it would make up to eight.

    What a thread of the compiler frees stays in its arena, and threads of other arenas cannot use
    it. Call it before threads start. MALLOC_ARENA_MAX in the environment takes precedence.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, available_cores())


def return_freed_memory() -> None:
    """Returns to the system what this process has freed; glibc keeps it, .4 GB after compiling."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def peak_of_process() -> int | None:
    """The most bytes of memory that this process has had so far; None where it is unknown."""
    return _kilobytes("/proc/self/status", "VmHWM")


def _free() -> int:
    available = _kilobytes("/proc/meminfo", "MemAvailable")  # with what the page cache would give
    if available is not None:
        return available
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _kilobytes(path: str, name: str) -> int | None:
    """An entry `name: NUMBER kB` of a file of Linux, in bytes; None: there is none."""
    for line in _lines(path):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_containers() -> list[int]:
    left = []
    for files in _CGROUPS:
        numbers = [_number(path) for path in files]
        if None not in numbers:
            left.append(max(0, numbers[0] - numbers[1]))
    return left


def _number(path: str) -> int | None:
    """The number in a file; None for a missing file, and for 'max'."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
