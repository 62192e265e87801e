"""A file that is still arriving: TARGET.part, and beside it what it is a part of.

TARGET.part.json keeps the URL and the server's mark of the version (RFC 9110: ETag or
Last-Modified), so that this process or a later one can ask for the rest of the same version.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
from pathlib import Path

_CHUNK = 1 << 20


class PartialFile:
    """What has arrived of one version of a file, and the hash of that; a context that locks it.

    Attributes:
      folder: where it is.
      size: bytes that have arrived.
      total: bytes of the whole, None where the server does not tell.
      version: the server's mark of the version, None where it cannot be gone on with.
    """

    def __init__(self, url: str, target: Path):
        self._url, self._target, self.folder = url, target, target.parent
        self._path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")

    def __enter__(self) -> "PartialFile":
        self._file = self._open_locked()
        self._digest, self.size = hashlib.sha256(), 0
        self.version, self.total = self._noted()
        if self.version is None:
            self.restart(None, None)
        while chunk := self._file.read(_CHUNK):
            self._digest.update(chunk)
            self.size += len(chunk)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.size:
            self.delete()
        self._file.close()

    @property
    def sha256(self) -> str:
        """The hash of what has arrived, in hexadecimal digits."""
        return self._digest.hexdigest()

    def restart(self, version: str | None, total: int | None) -> None:
        """Forgets what has arrived."""
        self._file.truncate(0)
        self._digest, self.size = hashlib.sha256(), 0
        self.version, self.total = version, total
        note = {"url": self._url, "version": version, "total": total}
        self._note.write_text(json.dumps(note), encoding="utf-8")

    def write(self, chunk: bytes) -> None:
        """Adds what arrives."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)

    def keep(self) -> None:
        """Gives the file its final name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._path, self._target)
        self._note.unlink(missing_ok=True)

    def delete(self) -> None:
        """Removes what has arrived."""
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _open_locked(self) -> io.BufferedRandom:
        while True:
            file = open(self._path, "a+b")  # noqa: SIM115 (__exit__ closes it)
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held the lock before may have given this file its final name.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    file.seek(0)
                    return file
            file.close()

    def _noted(self) -> tuple[str | None, int | None]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
            if note["url"] == self._url:
                return note["version"], note["total"]
        return None, None
