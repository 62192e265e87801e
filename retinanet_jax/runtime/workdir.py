"""The folder of a run: its lock, atomic writes, and disk errors that name the fix."""

import contextlib
import errno
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import logging
from filelock import FileLock, Timeout

from retinanet_jax.runtime.processes import from_first

LOCK_FILE = ".lock"

_FIXES = {
    errno.ENOSPC: "free some space, or use another --workdir; the same command then resumes from "
    "the last checkpoint",
    errno.EDQUOT: "free some of your quota, or use another --workdir; the same command then "
    "resumes from the last checkpoint",
    errno.EROFS: "use a --workdir on a writable file system",
    errno.EACCES: "use a --workdir with write permission",
    errno.EPERM: "use a --workdir with write permission",
    errno.ENOENT: "use a --workdir that can be created; nothing may delete it during a run",
    errno.ENOTDIR: "use a --workdir whose parents are folders",
    errno.EEXIST: "use a --workdir that is a folder or does not exist yet",
}
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


class WorkdirError(RuntimeError):
    """A workdir that another run uses, or that is not writable; names it, and the fix."""


@contextlib.contextmanager
def locked(workdir: Path, patience: float = 0.0) -> Iterator[None]:
    """Locks `workdir` for one run; creates it if missing.

    The lock is the kernel's (flock) and ends with the process, so a `.lock` file left behind never
    blocks. Process id and host in it are for the message only: in containers that share a folder
    they may be those of another process. On a file system without locks a warning is logged, and
    nothing prevents a second run.

    Args:
        workdir: folder of the run.
        patience: seconds to wait for another run to release it.

    Raises:
        WorkdirError: another run holds the lock, or the folder is not writable.
    """
    with disk_errors(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        # No soft lock where flock is missing: it believes the process id in the file.
        lock = FileLock(
            workdir / LOCK_FILE,
            fallback_to_soft=False,
            preserve_lock_file=True,
            on_acquired=_write_holder,
        )
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            raise WorkdirError(_held(workdir)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            (workdir / LOCK_FILE).write_text(_holder(), encoding="utf-8")
            logging.warning(
                "%s: the file system has no locks; do not start a second run in it", workdir
            )
    try:
        yield
    finally:
        lock.release()


def _holder() -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {started}\n"


def _write_holder(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, _holder().encode(), 0)


def _held(workdir: Path) -> str:
    try:
        holder = (workdir / LOCK_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        holder = ""
    return (
        f"{workdir}: in use by another run ({holder or 'unknown process'}); wait for it, stop it, "
        "or use another --workdir"
    )


def check_shared(workdir: Path, seconds: float = 60.0) -> None:
    """Checks that this process sees the folder that process 0 has locked, perhaps on another host.

    Raises:
        WorkdirError: not within `seconds`, in which a network file system should show new files.
    """
    held = lock_of_first(workdir)
    deadline = time.monotonic() + seconds
    while read_lock(workdir) != held:
        if time.monotonic() > deadline:
            raise WorkdirError(
                f"{workdir}: not the same folder on {socket.gethostname()} as for process 0 "
                f"({held.strip()}); use a --workdir that all hosts share, or one in object storage"
            )
        time.sleep(0.5)


def lock_of_first(workdir: Path) -> str:
    """The holder of the lock of `workdir` as process 0 sees it."""
    return from_first("lock", read_lock(workdir) if jax.process_index() == 0 else "")


def read_lock(workdir: Path) -> str:
    """The holder of the lock of `workdir`; '' without one."""
    path = workdir / LOCK_FILE
    return path.read_text(encoding="utf-8") if path.exists() else ""


@contextlib.contextmanager
def disk_errors(workdir: Path) -> Iterator[None]:
    """Turns OSErrors of a full, read-only or forbidden disk into a WorkdirError with the fix."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not Path(error.filename).is_relative_to(workdir)
        if elsewhere or error.errno not in _FIXES:
            raise
        raise WorkdirError(
            f"{error.filename or workdir}: not writable: {error.strerror}"
            f"{free_space(workdir)}; {_FIXES[error.errno]}"
        ) from error


def free_space(workdir: Path) -> str:
    """' (N MB free)' for the disk of `workdir`, or '' if unknown."""
    try:
        return f" ({shutil.disk_usage(workdir).free / 1e6:.1f} MB free)"
    except OSError:
        return ""


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a temporary file and renames it: readers never see half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the process id: an evaluation and a run may write the same file at the same time.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
