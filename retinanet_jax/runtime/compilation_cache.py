"""Compiled programs kept between runs: the second start of a run does not compile again."""

import hashlib
import os
import platform
from pathlib import Path

import jax

# Bytes. A ResNet-50's training step takes some ten megabytes; the least recently used go first.
MAX_BYTES = 2 * 2**30


def keep_compilations(cache_dir: str | Path) -> None:
    """Lets JAX keep compiled programs in cache_dir/compilations, and take them from there.

    A folder chosen by JAX's own setting (JAX_COMPILATION_CACHE_DIR) stays. JAX keys programs by
    their content, versions and flags, but not by the kind of CPU, whose machine code may not run
    on another one: a home directory can be seen from many machines, so each kind has a folder.
    A folder that cannot be written costs the time to compile and nothing else.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    folder = Path(cache_dir).expanduser() / "compilations" / _processor()
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)


def _processor() -> str:
    """A name for the kind of this machine's CPU: the same where the same instructions run."""
    description = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        # x86 calls them flags, ARM Features.
        described = ("model name", "flags", "Features", "CPU part")
        description += "".join(sorted({line for line in lines if line.startswith(described)}))
    except OSError:
        pass  # no Linux
    return hashlib.sha256(description.encode()).hexdigest()[:12]
