"""Downloads of workdirs in object storage, for those who read a run."""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from retinanet_jax.runtime.manifest import MANIFEST
from retinanet_jax.runtime.remote_folder import RemoteFolder, is_remote
from retinanet_jax.runtime.user_folders import expand_user
from retinanet_jax.runtime.workdir import WorkdirError

OWNER = "owner.json"  # in the storage: which working copy writes there
_CHECKPOINT = re.compile(r"((?:best/)?checkpoints/\d+)/(.+)")
# Temporary files and what is left of incomplete or damaged checkpoints.
_UNUSED = re.compile(r"(^|/)\.|checkpoints(\.damaged)?/")

Select = Callable[[Sequence[str]], Iterable[str]]


def everything(names: Sequence[str]) -> Sequence[str]:
    """All files of a workdir."""
    return names


def without_checkpoints(names: Sequence[str]) -> Iterable[str]:
    """Settings, metrics and results."""
    return (name for name in names if not _CHECKPOINT.match(name))


def checkpoint_of(step: int | None) -> Select:
    """The files that `choose_checkpoint` needs for a step: None is the best, or the latest."""

    def select(names: Sequence[str]) -> Iterable[str]:
        folders = complete_checkpoints(names)
        best = [folder for folder in folders if folder.startswith("best/")]
        if step is not None:
            folders = [folder for folder in folders if folder.endswith(f"/{step}")]
        elif best:
            folders = best
        return (name for name in names if any(name.startswith(f"{f}/") for f in folders))

    return select


@contextlib.contextmanager
def local_workdir(workdir: str | Path, select: Select = everything) -> Iterator[Path]:
    """A local workdir itself; of a remote one a download, which is deleted at the end.

    Files that are new or changed at the end are copied to the storage, except metrics.jsonl, which
    belongs to the run that trains there.

    Args:
        workdir: workdir of a run, local or remote.
        select: function that selects the files to download from all file names.

    Raises:
        WorkdirError: the storage is not accessible, or has no such folder.
    """
    if not is_remote(workdir):
        yield expand_user(workdir)
        return
    remote = RemoteFolder(str(workdir))
    with tempfile.TemporaryDirectory(prefix="retinanet_jax-") as temporary:
        folder = Path(temporary) / remote.location.rpartition("/")[2]
        folder.mkdir()
        if not download(remote, folder, select) and not remote.read(OWNER):
            raise WorkdirError(f"{workdir}: no files of a run; fix the address, or train first")
        before = _stats(folder)
        try:
            yield folder
        except RuntimeError as error:
            # Messages name the files of the download.
            error.args = tuple(
                arg.replace(str(folder), remote.location) if isinstance(arg, str) else arg
                for arg in error.args
            )
            raise
        changed = [name for name, stat in _stats(folder).items() if before.get(name) != stat]
        changed = [name for name in changed if name != "metrics.jsonl"]
        remote.write({name: (folder / name).read_bytes() for name in changed})
        if changed:
            print(f"written: {remote.location}: {', '.join(changed)}", flush=True)


def download(remote: RemoteFolder, folder: Path, select: Select = everything) -> int:
    """Downloads the selected files of a remote workdir; of checkpoints only complete ones.

    Returns:
        How many files.
    """
    names = remote.names()
    complete = complete_checkpoints(names)
    names = [
        name
        for name in select(names)
        if name != OWNER
        and (
            match[1] in complete if (match := _CHECKPOINT.match(name)) else not _UNUSED.search(name)
        )
    ]
    remote.download(folder, names)
    return len(names)


def complete_checkpoints(names: Sequence[str]) -> list[str]:
    """Folders of the checkpoints that have a manifest, which is copied last."""
    matches = map(_CHECKPOINT.fullmatch, names)
    return [match[1] for match in matches if match and match[2] == MANIFEST]


def local_files(workdir: Path) -> tuple[list[str], list[str]]:
    """Folders of complete checkpoints, and the names of all files outside of checkpoints."""
    # os.walk passes over what the run deletes meanwhile.
    names = [
        (Path(folder) / file).relative_to(workdir).as_posix()
        for folder, _, files in os.walk(workdir)
        for file in files
    ]
    return complete_checkpoints(names), [name for name in names if not _UNUSED.search(name)]


def _stats(folder: Path) -> dict[str, tuple[int, int]]:
    names = local_files(folder)[1]
    stats = {name: (folder / name).stat() for name in names}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
