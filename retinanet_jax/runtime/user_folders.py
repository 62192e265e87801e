"""Paths below the home directory, also for users without one; where the cache is."""

import os
import tempfile
from pathlib import Path

# The default of config.data.cache_dir, which stands for `cache_location()`.
CACHE = "~/.cache/retinanet_jax"


def cache_location(cache_dir: str | os.PathLike = CACHE) -> Path:
    """The folder of the cache, which may begin with ~.

    CACHE stands for $RETINANET_JAX_CACHE, or retinanet_jax in $XDG_CACHE_HOME or ~/.cache.
    """
    if os.fspath(cache_dir) != CACHE:
        return Path(cache_dir)
    if own := os.environ.get("RETINANET_JAX_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(shared) / "retinanet_jax" if shared else Path(CACHE)


def cache_folder(cache_dir: str | os.PathLike = CACHE) -> Path:
    """`cache_location` with the home directory, or what stands in for it."""
    return expand_user(cache_location(cache_dir))


def expand_user(path: str | os.PathLike) -> Path:
    """`Path.expanduser`, with the folder for temporary files in place of a missing home.

    A process may have neither HOME nor an entry in the password database, as in a container that
    runs under an arbitrary user id; `Path.expanduser` then raises RuntimeError.
    """
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:
        if path.parts[0] != "~":  # another user's home
            raise
        home = Path(tempfile.gettempdir()) / f"retinanet_jax-{os.getuid()}"
        return home.joinpath(*path.parts[1:])
