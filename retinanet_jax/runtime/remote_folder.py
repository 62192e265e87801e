"""A folder in object storage, by fsspec; errors name the missing package or credentials."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import fsspec

from retinanet_jax.runtime.workdir import WorkdirError

_OTHERS = ("http", "https", "hf", "rtsp", "rtmp", "udp")  # not workdirs


class _Storage(NamedTuple):
    package: str
    credentials: str


_GOOGLE = _Storage(
    "gcsfs",
    "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
)
_AMAZON = _Storage(
    "s3fs", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`"
)
_AZURE = _Storage("adlfs", "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY")
STORAGES = {
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "s3": _AMAZON,
    "s3a": _AMAZON,
    "az": _AZURE,
    "abfs": _AZURE,
}


def is_remote(location: object) -> bool:
    """Whether a location is an address of storage, such as gs://bucket/run."""
    scheme, separator, _ = str(location).partition("://")
    return bool(separator) and scheme not in _OTHERS


class RemoteFolder:
    """The files of a folder in object storage, by their names below it.

    Args:
        location: address of the folder, such as gs://bucket/run.

    Raises:
        WorkdirError: also by the methods: the storage is not accessible.
    """

    def __init__(self, location: str):
        self.location = location.rstrip("/")
        scheme = location.partition("://")[0]
        self._storage = STORAGES.get(scheme)
        try:
            with self._errors():
                self._files, root = fsspec.core.url_to_fs(self.location)
        except ImportError as error:
            fix = f"pip install {self._storage.package}" if self._storage else str(error)
            raise WorkdirError(
                f"{location}: the package for {scheme}:// is not installed; {fix}"
            ) from None
        self._root = root.rstrip("/")

    def sizes(self, folder: str = "") -> dict[str, int]:
        """All files, or those of a folder below, sorted by name, with their bytes."""
        with self._errors():
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._path(folder).rstrip("/"), detail=True)
            except FileNotFoundError:
                return {}
        sizes = {path[len(self._root) + 1 :]: found[path]["size"] for path in sorted(found)}
        return {name: size for name, size in sizes.items() if name and not name.endswith("/")}

    def names(self, folder: str = "") -> list[str]:
        """All files, or those of a folder below, sorted."""
        return list(self.sizes(folder))

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        with self._errors():
            try:
                return self._files.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Writes files, each as a whole."""
        with self._errors():
            for name, content in contents.items():
                self._files.pipe_file(self._path(name), content)

    def upload(self, local: Path, folder: str, names: Sequence[str]) -> None:
        """Copies files of `local` below `folder`, several at a time, and checks their sizes."""
        with self._errors():
            self._files.put([str(local / name) for name in names], [*map(self._path, names)])
        sizes = self.sizes(folder)
        for name in names:
            if (found := sizes.get(name, 0)) != (size := (local / name).stat().st_size):
                raise WorkdirError(f"{self.location}/{name}: {found} of {size} bytes were copied")

    def download(self, folder: Path, names: Sequence[str]) -> None:
        """Copies files to a local folder, several at a time."""
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if names:
            with self._errors():
                self._files.get([*map(self._path, names)], [str(folder / name) for name in names])

    def delete(self, names: Sequence[str]) -> None:
        """Deletes files, in this order."""
        with self._errors():
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns the errors of all kinds of storage, each with classes of its own, into one."""
        try:
            yield
        except ImportError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            fix = "check the address"
            if self._storage:
                fix = f"check the name of the bucket; for access, {self._storage.credentials}"
            raise WorkdirError(f"{self.location}: not accessible ({reason}); {fix}") from error
