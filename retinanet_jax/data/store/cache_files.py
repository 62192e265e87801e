"""Arrays in cache files: written atomically; a damaged file counts as missing."""

import contextlib
import logging
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

_log = logging.getLogger(__name__)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a file by name; None if there is none or it is broken."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays to a file; logs a warning where that is not possible."""
    temporary = path.with_name(f"{path.stem}.{uuid.uuid4()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)
    except OSError as error:
        _log.warning(
            "%s: cannot be written (%s), so the data is read again at each start; set "
            "data.cache_dir to a folder that can be written to",
            path,
            error.strerror,
        )
        with contextlib.suppress(OSError):
            temporary.unlink()


def pack_names(names: Sequence[str]) -> UInt8[np.ndarray, " n"]:
    """Returns strings without NUL as one array of bytes."""
    text = "".join(f"{name}\0" for name in names)
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


def unpack_names(packed: UInt8[np.ndarray, " n"]) -> list[str]:
    """Returns the inverse of pack_names."""
    return packed.tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
