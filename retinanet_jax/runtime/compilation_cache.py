"""Compiled programs on disk: the second start of a run compiles nothing."""

import contextlib
import hashlib
import os
import platform
import tempfile
from pathlib import Path

import jax
from absl import logging
from filelock import FileLock, Timeout

from retinanet_jax.runtime.user_folders import cache_folder

# Bytes; the least recently used programs go first. A training step of a ResNet-50 has some 10 MB.
MAX_BYTES = 2 * 2**30


def keep_compilations(cache_dir: str | Path, shared: Path | None = None) -> Path | None:
    """Makes JAX keep compiled programs in cache_dir/compilations, and load them from there.

    Of the processes of a run, JAX lets only the first write, so they need one folder on all hosts:
    shared/compilations. Below the same folder, XLA keeps the algorithms that it chose on a GPU by
    measuring them (xla_gpu_per_fusion_autotune_cache_dir).

    A folder set by JAX_COMPILATION_CACHE_DIR is left as it is. JAX's key of a program has its
    content, versions, flags and this folder, but not the CPU model, and machine code of one CPU may
    crash on another. Home directories are shared between machines, so each model has a folder of
    its own. If the folder is not writable, a warning is logged, and each start compiles.

    Args:
        cache_dir: for a run of one process.
        shared: a folder that all processes see at this path, for a run of several. None: cache_dir.

    Returns:
        The folder; None if another one was set, or it is not writable.
    """
    if jax.config.jax_compilation_cache_dir:
        return None
    several = shared is not None and jax.process_count() > 1
    folder = shared.absolute() if several else cache_folder(cache_dir)
    folder = folder / "compilations" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        logging.warning(
            "%s: not writable (%s), so every start compiles again; set config.data.cache_dir or "
            "JAX_COMPILATION_CACHE_DIR to a writable folder",
            *(folder, error.strerror),
        )
        return None
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    if _has_account():
        remove_incomplete(folder)
        jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    return folder


def _has_account() -> bool:
    """Whether the password database has this user.

    Without an entry, as in containers with an arbitrary user id, the size limit makes JAX fail to
    add programs: it looks up the owner of each file.
    """
    try:
        import pwd

        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    except ImportError:  # not Unix
        pass
    return True


def remove_incomplete(folder: Path) -> None:
    """Removes entries that a killed process left incomplete.

    JAX writes KEY-cache, then KEY-atime. With one KEY-cache that has no KEY-atime, it fails to add
    any further program (jax-ml/jax issue 39880), and it never replaces a truncated one.
    """
    if not folder.is_dir():
        return
    # JAX's own lock: no process is between the two writes.
    with contextlib.suppress(Timeout, OSError), FileLock(folder / ".lockfile", timeout=5):
        for path in folder.glob("*-cache"):
            if not path.with_name(path.name.removesuffix("-cache") + "-atime").exists():
                path.unlink(missing_ok=True)


def _processor() -> str:
    """A name for the CPU model: equal where the same instructions run."""
    description = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        # x86 calls them flags, ARM Features.
        described = ("model name", "flags", "Features", "CPU part")
        description += "".join(sorted({line for line in lines if line.startswith(described)}))
    except OSError:
        pass  # not Linux
    return hashlib.sha256(description.encode()).hexdigest()[:12]
