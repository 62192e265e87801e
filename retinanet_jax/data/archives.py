"""Zip and tar archives read in place: a member has the interface of a pathlib.Path.

Nothing is extracted, and members are found only by name, so a name in an archive cannot lead out of
it. Several threads may read members of one archive. A FilePart is a member of a file without names:
some of its bytes.
"""

import abc
import contextlib
import dataclasses
import errno
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from retinanet_jax.data.data_errors import DataError


class OpenArchive(abc.ABC):
    """An archive with its members by name."""

    def __init__(self, path: Path, members: dict[str, Any]):
        self.path, self.members = path, members

    @abc.abstractmethod
    def open(self, name: str) -> io.BufferedIOBase:
        """Returns a member to read.

        Raises:
          KeyError: the member does not exist.
          OSError: it is damaged.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the file, after which members cannot be read."""


@dataclasses.dataclass(frozen=True)
class ArchivePath:
    """A member of an archive, or a folder in it; reads like a pathlib.Path."""

    archive: OpenArchive
    place: PurePosixPath = PurePosixPath()

    def __truediv__(self, name: str) -> "ArchivePath":
        return ArchivePath(self.archive, self.place / name)

    def __str__(self) -> str:
        return str(self.archive.path / self.place)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.place.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self.place.stem

    @property
    def parent(self) -> "ArchivePath":
        """The folder it is in."""
        return ArchivePath(self.archive, self.place.parent)

    def is_file(self) -> bool:
        """Returns whether a member has this name."""
        return str(self.place) in self.archive.members

    def is_dir(self) -> bool:
        """Returns whether members are below this path."""
        start = f"{self.place}/"
        return any(name.startswith(start) for name in self.archive.members)

    def open(self, mode: str = "rb") -> io.BufferedIOBase:
        """Opens the member to read bytes; OSError if it is missing or damaged."""
        if mode != "rb":
            raise ValueError(
                f"{self}: mode {mode!r} is not supported: archives are read only, as bytes"
            )
        try:
            return self.archive.open(str(self.place))
        except KeyError:
            what = f"is not in {self.archive.path.name}"
            raise FileNotFoundError(errno.ENOENT, what, str(self)) from None

    def read_bytes(self) -> bytes:
        """Returns the content; OSError if it is missing or damaged."""
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """Returns the content, decoded."""
        return self.read_bytes().decode(encoding)


@dataclasses.dataclass(frozen=True)
class FilePart:
    """Some bytes of a file, with the part of pathlib.Path's interface that images need.

    Each reading opens and closes the file.
    """

    file: Path
    offset: int
    size: int

    def __str__(self) -> str:
        return str(self.file / self.name)

    @property
    def name(self) -> str:
        """The place of the bytes; as text, a part is a file in the folder `file`."""
        return f"bytes {self.offset}-{self.offset + self.size - 1}"

    @property
    def parent(self) -> Path:
        """The file."""
        return self.file

    def is_file(self) -> bool:
        """Returns whether the file exists."""
        return self.file.is_file()

    def read_bytes(self) -> bytes:
        """Returns the bytes; OSError if they are missing."""
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(errno.EIO, f"is truncated in {self.file.name}")
        return data


AnyPath = Path | ArchivePath | FilePart


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[ArchivePath]:
    """Yields the outermost folder of a zip or an uncompressed tar.

    Raises:
      DataError: the file is neither, or it is truncated.
    """
    try:
        archive = _Zip(path) if path.suffix == ".zip" else _Tar(path)
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        fix = "delete it and download it again"
        raise DataError("archive", path, "", f"cannot be read ({error})", fix) from error
    with contextlib.closing(archive):
        yield ArchivePath(archive)


class _Zip(OpenArchive):
    def __init__(self, path: Path):
        self._file = zipfile.ZipFile(path)
        super().__init__(path, {i.filename: i for i in self._file.infolist() if not i.is_dir()})

    def open(self, name: str) -> io.BufferedIOBase:
        return _ZipMember(self._file, self.members[name])

    def close(self) -> None:
        self._file.close()


class _ZipMember(io.BufferedIOBase):
    """A member of a zip; damage is an OSError, as it is with files."""

    def __init__(self, file: zipfile.ZipFile, info: zipfile.ZipInfo):
        with self._damage():
            self._member = file.open(info)

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, or all there are."""
        with self._damage():
            return self._member.read(size)

    def close(self) -> None:
        self._member.close()
        super().close()

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise OSError(errno.EIO, f"is damaged in the archive ({error})") from error


class _Tar(OpenArchive):
    """Reads members by their place in the file: tarfile's own reader is for one thread."""

    def __init__(self, path: Path):
        with tarfile.open(path, "r:") as file:
            members = {
                info.name.removeprefix("./"): (info.offset_data, info.size)
                for info in file
                if info.isreg() and not info.issparse()
            }
        super().__init__(path, members)
        self._descriptor = os.open(path, os.O_RDONLY)

    def open(self, name: str) -> io.BufferedIOBase:
        offset, size = self.members[name]
        data = os.pread(self._descriptor, size, offset)
        if len(data) < size:
            raise OSError(errno.EIO, f"is truncated in {self.path.name}")
        return io.BytesIO(data)

    def close(self) -> None:
        os.close(self._descriptor)
