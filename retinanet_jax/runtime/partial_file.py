"""A partial download, TARGET.part, and a record of its URL and version.

TARGET.part.json keeps the URL and the server's mark of the version (RFC 9110: ETag or
Last-Modified), so that this process or a later one can ask for the rest of the same version.

A lock on TARGET.part makes other processes wait. Where the file system has no locks, each process
writes to a file of its own, which it deletes if the download fails.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import secrets
from pathlib import Path


class PartialFile:
    """What has arrived of one version of a file; a context manager that holds the lock.

    Attributes:
      target: the path of the whole file.
      size: bytes that have arrived.
      total: bytes of the whole file, None where the server does not say.
      own: it belongs to this process alone, for there are no locks.
      version: the server's mark of the version, None where the download cannot resume.
    """

    def __init__(self, url: str, target: Path):
        self._url, self.target = url, target
        self._path = target.with_name(target.name + ".part")
        self.own = False

    def __enter__(self) -> "PartialFile":
        self._file = self._open_locked()
        self.version, self.total = self._noted()
        self.size = self._file.seek(0, os.SEEK_END)
        if self.version is None:
            self.restart(None, None)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.size or self.own:
            self.delete()
        self._file.close()

    @property
    def _note(self) -> Path:
        return self._path.with_name(self._path.name + ".json")

    def restart(self, version: str | None, total: int | None) -> None:
        """Discards what has arrived."""
        self._file.seek(0)
        self._file.truncate(0)
        self.size, self.version, self.total = 0, version, total
        note = {"url": self._url, "version": version, "total": total}
        self._note.write_text(json.dumps(note), encoding="utf-8")

    def write(self, chunk: bytes) -> None:
        """Appends what arrives."""
        self._file.write(chunk)
        self.size += len(chunk)

    def measure(self) -> tuple[int, str]:
        """Size and SHA-256 (hexadecimal) of the file as it is on the disk now."""
        self._file.flush()
        os.fsync(self._file.fileno())
        with open(self._path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return file.tell(), digest

    def keep(self) -> None:
        """Gives the file its final name."""
        os.replace(self._path, self.target)
        self._note.unlink(missing_ok=True)

    def delete(self) -> None:
        """Removes what has arrived."""
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _open_locked(self) -> io.BufferedRandom:
        while True:
            file = open(self._path, "a+b")  # noqa: SIM115 (__exit__ closes it)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                file.close()
                return self._open_own()
            # The process that held the lock may have given this file its final name.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    return file
            file.close()

    def _open_own(self) -> io.BufferedRandom:
        """A file that no other process opens; for file systems without locks."""
        with contextlib.suppress(OSError):
            if not self._path.stat().st_size:
                self._path.unlink()
        name = f"{self.target.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
        self._path, self.own = self.target.with_name(name), True
        return open(self._path, "a+b")

    def _noted(self) -> tuple[str | None, int | None]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
            if note["url"] == self._url:
                return note["version"], note["total"]
        return None, None
