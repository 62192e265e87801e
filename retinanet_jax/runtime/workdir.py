"""The folder of a run: one run at a time writes into it, whole files only, errors in words."""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from retinanet_jax.runtime.processes import from_first

LOCK_FILE = ".lock"

_MENDS = {
    errno.ENOSPC: "make room, or use another --workdir; the same command goes on from the last "
    "checkpoint",
    errno.EDQUOT: "make room within your quota, or use another --workdir; the same command goes "
    "on from the last checkpoint",
    errno.EROFS: "use a --workdir on a file system that can be written",
    errno.EACCES: "use a --workdir that you may write into",
    errno.EPERM: "use a --workdir that you may write into",
    errno.ENOTDIR: "use a --workdir whose path leads through folders only",
    errno.EEXIST: "use a --workdir that is a folder, or does not exist yet",
}


class WorkdirError(RuntimeError):
    """A workdir that another run holds, or that cannot be written; says which, and the fix."""


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds `workdir` for one run; made where it does not exist.

    The lock goes with the process, however that ends: the file `.lock` that stays behind is no
    obstacle. File systems without locks give no protection.

    Raises:
        WorkdirError: another run holds it (the message names process and host), or it cannot be
            written.
    """
    with telling_of_disk(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / LOCK_FILE, "a+")  # noqa: SIM115 (closed below)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkdirError(_held(workdir)) from None
        except OSError:
            pass  # some network file systems have no locks
        with telling_of_disk(workdir):
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            _overwrite(file, f"process {os.getpid()} on {socket.gethostname()} since {started}")
        yield


def check_shared(workdir: Path, seconds: float = 60.0) -> None:
    """Sees that this process has the folder that process 0 has locked, be it on another host.

    Raises:
        WorkdirError: not after `seconds`, in which a network file system should show new files.
    """
    path = workdir / LOCK_FILE
    held = from_first("lock", path.read_text() if jax.process_index() == 0 else "")
    deadline = time.monotonic() + seconds
    while not path.exists() or path.read_text() != held:
        if time.monotonic() > deadline:
            raise WorkdirError(
                f"{workdir}: is another folder on {socket.gethostname()} than for process 0 "
                f"({held.strip()}); use a --workdir that all hosts share"
            )
        time.sleep(0.5)


@contextlib.contextmanager
def telling_of_disk(workdir: Path) -> Iterator[None]:
    """Turns what a full, read-only or forbidden disk raises inside into a WorkdirError."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not Path(error.filename).is_relative_to(workdir)
        if elsewhere or error.errno not in _MENDS:
            raise
        raise WorkdirError(
            f"{error.filename or workdir}: cannot be written: {error.strerror}"
            f"{describe_room(workdir)}; {_MENDS[error.errno]}"
        ) from error


def describe_room(workdir: Path) -> str:
    """' (N MB are free)' on the disk of `workdir`, or '' where nobody can tell."""
    try:
        return f" ({shutil.disk_usage(workdir).free / 1e6:.1f} MB are free)"
    except OSError:
        return ""


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes beside and renames, so that no half file is ever seen, nor an old one lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # An evaluation beside the run writes the same files: each process has a name of its own.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _held(workdir: Path) -> str:
    try:
        holder = (workdir / LOCK_FILE).read_text().strip()
    except OSError:
        holder = ""
    return (
        f"{workdir}: another run trains in it ({holder or 'which one cannot be read'}); wait for "
        "it, end it, or use another --workdir"
    )


def _overwrite(file, text: str) -> None:
    file.truncate(0)
    file.write(text + "\n")
    file.flush()
