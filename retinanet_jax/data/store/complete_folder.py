"""Atomic folders: complete or absent.

A folder is written under a temporary name and renamed at the end. If several processes need the
same folder at once, one of them writes it and the others wait.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from retinanet_jax.data.data_errors import DataError

_HOST = socket.gethostname()


def prepare_once(data_dir: Path, prepared: Path, write: Callable[[Path], None]) -> Path:
    """Writes `prepared`, a folder below data_dir, unless it exists.

    `write` gets a temporary data_dir and writes the same path below it. A killed process leaves
    only a folder named .incomplete-*, which the next process on this machine removes.

    Raises:
      DataError: data_dir is not writable, or its disk is full.
    """
    if prepared.is_dir():
        return prepared
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        temporary = data_dir / f".incomplete-{_HOST}-{os.getpid()}-{uuid.uuid4()}"
        temporary.mkdir()
    except OSError as error:
        fix = "set data.cache_dir to a folder that can be written to"
        raise DataError("cache_dir", data_dir, "", error.strerror, fix) from error
    try:
        with _lock(data_dir, prepared):
            if not prepared.is_dir():
                _remove_leftovers(data_dir)
                _write(write, temporary)
                _move(temporary / prepared.relative_to(data_dir), prepared)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return prepared


def _write(write: Callable[[Path], None], temporary: Path) -> None:
    try:
        write(temporary)
    except (OSError, RuntimeError) as error:  # ArrayRecord's writer raises RuntimeError
        messages = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]
        reason = next((message for message in messages if message in str(error)), None)
        if reason is None:
            raise
        fix = "free some space or use another folder; no partial files are left"
        raise DataError("full disk", temporary.parent, "", reason, fix) from error


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError:
        # Without working locks (some network file systems) another process may have been first.
        if not target.is_dir():
            raise


@contextlib.contextmanager
def _lock(data_dir: Path, prepared: Path) -> Iterator[None]:
    name = "-".join(prepared.relative_to(data_dir).parts)
    with open(data_dir / f".{name}.lock", "w") as file:
        with contextlib.suppress(OSError):  # no locks on this file system: the rename is atomic
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers(data_dir: Path) -> None:
    prefix = f".incomplete-{_HOST}-"
    for folder in data_dir.glob(f"{prefix}*"):
        process = folder.name.removeprefix(prefix).split("-")[0]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
