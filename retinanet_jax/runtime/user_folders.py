"""Paths below the home directory, also for users without one."""

import os
import tempfile
from pathlib import Path


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
