"""Memory of the machine and of the process."""

import ctypes
import os
import subprocess
import sys

import pytest

from retinanet_jax.runtime import machine_memory
from retinanet_jax.runtime.cores import available_cores

# Threads that allocate at the same time, so that each wants an arena; malloc_info counts them.
COUNT_ARENAS = """
import ctypes, sys, threading
from retinanet_jax.runtime.machine_memory import limit_arenas

if "limit" in sys.argv:
    limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
count = int(sys.argv[1])
all_here = threading.Barrier(count)

def allocate():
    all_here.wait()
    libc.malloc(1000)
    all_here.wait()

threads = [threading.Thread(target=allocate) for _ in range(count)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
stdout = ctypes.c_void_p.in_dll(libc, "stdout")
libc.malloc_info(0, stdout)
libc.fflush(stdout)
"""

glibc_only = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="another C library than glibc"
)


def arenas(*arguments: str, **environment: str) -> int:
    command = [sys.executable, "-c", COUNT_ARENAS, str(2 * available_cores() + 2), *arguments]
    inherited = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"}
    done = subprocess.run(command, capture_output=True, check=True, env=inherited | environment)
    return done.stdout.count(b"<heap nr=")


@glibc_only
def test_threads_share_an_arena_per_core():
    assert arenas("limit") <= available_cores() < arenas()


@glibc_only
def test_the_limit_of_the_environment_holds():
    assert arenas("limit", MALLOC_ARENA_MAX=str(available_cores() + 1)) == available_cores() + 1


def test_a_container_leaves_less_than_the_machine(tmp_path, monkeypatch):
    for name, text in (("max", "3000000"), ("current", "1000000"), ("v1", "no number")):
        (tmp_path / name).write_text(f"{text}\n")
    pairs = [("max", "current"), ("v1", "current"), ("missing", "current")]
    files = tuple(tuple(str(tmp_path / name) for name in pair) for pair in pairs)
    monkeypatch.setattr(machine_memory, "_CGROUPS", files)
    assert machine_memory.available_memory() == 2_000_000
    monkeypatch.setattr(machine_memory, "_CGROUPS", ())
    assert machine_memory.available_memory() > 2_000_000
