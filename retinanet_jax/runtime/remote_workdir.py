"""Workdirs in object storage: gs://, s3://, az:// and the other file systems of fsspec.

Object storage has no locks, cannot append to a file, and cannot rename a folder. A run therefore
works in a local folder, its working copy, and `Mirror` copies what is complete to the storage: one
way, and a checkpoint before its manifest, so that readers find complete checkpoints only.
"""

import contextlib
import hashlib
import json
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
from absl import logging

from retinanet_jax.runtime.manifest import MANIFEST
from retinanet_jax.runtime.processes import from_first, to_first
from retinanet_jax.runtime.remote_folder import RemoteFolder, is_remote
from retinanet_jax.runtime.user_folders import cache_folder
from retinanet_jax.runtime.workdir import (
    WorkdirError,
    check_shared,
    lock_of_first,
    locked,
    read_lock,
    write_whole,
)
from retinanet_jax.runtime.workdir_download import (
    OWNER,
    complete_checkpoints,
    download,
    local_files,
    local_workdir,
)

OWN_ID = ".owner"  # in a working copy: its id
BEST_RESULTS = "best/results.json"
INTERVAL = 30.0  # seconds between two copies


def working_copy(location: str, cache_dir: str | Path) -> Path:
    """The local folder in which a run with the remote workdir `location` works."""
    name = location.rstrip("/").rpartition("/")[2]
    digest = hashlib.sha256(location.rstrip("/").encode()).hexdigest()[:12]
    return cache_folder(cache_dir).absolute() / "workdirs" / f"{name}-{digest}"


@contextlib.contextmanager
def open_workdir(location: str | Path, cache_dir: str | Path) -> Iterator[tuple[Path, bool]]:
    """The local workdir of a run that writes, locked by process 0; a remote one is mirrored.

    All processes call it together. Hosts that do not see the working copy of process 0 get a
    temporary download.

    Args:
        location: the workdir, local or remote.
        cache_dir: has the working copy of a remote one.

    Yields:
        The folder, and whether all processes see the same one.

    Raises:
        WorkdirError: another run uses it, or it is not writable, not shared or not accessible.
    """
    remote = is_remote(location)
    workdir = working_copy(str(location), cache_dir) if remote else Path(location)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(locked(workdir))
            if remote:
                stack.enter_context(Mirror(workdir, str(location)))
                print(
                    f"{location}: the working copy is {workdir}; nothing prevents a second run",
                    flush=True,
                )
        if not remote:
            check_shared(workdir)
            yield workdir, True
            return
        sees_it = to_first("sees the lock", read_lock(workdir) == lock_of_first(workdir))
        shared = from_first("all see the lock", all(sees_it))
        if not shared and jax.process_index() > 0:
            workdir = stack.enter_context(local_workdir(location))
        yield workdir, shared


class Mirror:
    """Copies a workdir to remote storage, every `seconds` and at the end; a context manager.

    On entry, the working copy becomes equal to the storage, unless it was the last to write there:
    then it is at least as new. There are no locks: the run that starts last owns the storage, and
    an earlier one that still runs stops copying, with a warning and an error at its end.

    Args:
        workdir: the working copy, locked by the caller.
        location: address of the storage.
        seconds: between two copies.

    Raises:
        WorkdirError: on entry, and at the end of a run without another error: the storage is not
            accessible, or another run owns it. The working copy stays complete.
    """

    def __init__(self, workdir: Path, location: str, seconds: float = INTERVAL):
        self._workdir, self._remote, self._seconds = workdir, RemoteFolder(location), seconds
        self._id = ""
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of plain files
        self._manifests: dict[str, bytes] = {}  # of the checkpoints in the storage
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        if not self._is_owner():
            self._replace_working_copy()
        names = self._remote.names()
        self._manifests = {
            folder: self._remote.read(f"{folder}/{MANIFEST}") or b""
            for folder in complete_checkpoints(names)
        }
        owner = {"id": self._id, "host": socket.gethostname(), "since": time.strftime("%F %T")}
        self._remote.write({OWNER: json.dumps(owner).encode()})
        self.copy()
        self._thread.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self.copy()
        except WorkdirError as failed:
            message = f"{failed}. {self._workdir} is complete; the same command copies it again"
            if error is None:
                raise WorkdirError(message) from failed
            logging.error("%s", message)

    def copy(self) -> None:
        """Copies new and changed files, then deletes checkpoints that the run has deleted.

        In this order, so that the storage can be resumed from at any time: metrics reach at least
        to the step of a checkpoint, and best/results.json describes a checkpoint that is there.
        """
        if not self._is_owner():
            raise WorkdirError(
                f"{self._remote.location}: another run writes to it; use another --workdir"
            )
        folders, plain = local_files(self._workdir)
        self._copy_plain(name for name in plain if name != BEST_RESULTS)
        for folder in folders:
            self._copy_checkpoint(folder)
        self._copy_plain(name for name in plain if name == BEST_RESULTS)
        for folder in set(self._manifests) - set(folders):
            self._delete_checkpoint(folder)

    def _is_owner(self) -> bool:
        self._id = self._id or _read(self._workdir / OWN_ID).decode()
        try:
            owner = json.loads(self._remote.read(OWNER) or b"{}").get("id")
        except (ValueError, AttributeError):
            owner = None
        return bool(self._id) and owner == self._id

    def _replace_working_copy(self) -> None:
        for path in self._workdir.iterdir():
            if path.name == ".lock":
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        download(self._remote, self._workdir)
        self._id = uuid.uuid4().hex
        write_whole(self._workdir / OWN_ID, self._id)

    def _copy_plain(self, names: Iterable[str]) -> None:
        contents, stats = {}, {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                stat = (self._workdir / name).stat()
                if self._sent.get(name) != (found := (stat.st_size, stat.st_mtime_ns)):
                    contents[name], stats[name] = (self._workdir / name).read_bytes(), found
        self._remote.write(contents)
        self._sent |= stats

    def _copy_checkpoint(self, folder: str) -> None:
        manifest = _read(self._workdir / folder / MANIFEST)
        if not manifest or self._manifests.get(folder) == manifest:
            return
        if folder in self._manifests:
            self._delete_checkpoint(folder)
        try:
            names = [
                path.relative_to(self._workdir).as_posix()
                for path in sorted((self._workdir / folder).rglob("*"))
                if path.is_file() and path.name != MANIFEST
            ]
            self._remote.upload(self._workdir, folder, names)
        except (WorkdirError, FileNotFoundError):
            if (self._workdir / folder / MANIFEST).exists():
                raise
            self._delete_checkpoint(folder)  # the run has deleted it meanwhile
            return
        self._remote.write({f"{folder}/{MANIFEST}": manifest})
        self._manifests[folder] = manifest

    def _delete_checkpoint(self, folder: str) -> None:
        names = self._remote.names(folder)
        self._remote.delete(sorted(names, key=lambda name: name != f"{folder}/{MANIFEST}"))
        self._manifests.pop(folder, None)

    def _watch(self) -> None:
        before = ""
        while not self._ended.wait(self._seconds):
            try:
                self.copy()
                before = ""
            except (WorkdirError, OSError) as error:
                if str(error) != before:
                    logging.warning("%s; the run continues", error)
                before = str(error)


def _read(path: Path) -> bytes:
    """The content of a file; empty if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
