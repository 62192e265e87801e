"""Resumable downloads with checks of size and hash; a file gets its name when complete.

What has arrived is kept beside the target (partial_file.py). The next try, of this process or of a
later one, asks for the rest; if the file has changed on the server, the download starts again.
"""

import contextlib
import hashlib
import http.client
import logging
import math
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from retinanet_jax.runtime.partial_file import PartialFile

TIMEOUT_SECONDS = 30
TRIES = 5  # consecutive ones that bring nothing new
_FIRST_WAIT_SECONDS = 1.0  # doubles with each try
_CHUNK = 1 << 20
_TEMPORARY = (408, 416, 429, 500, 502, 503, 504)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

_log = logging.getLogger(__name__)


class DownloadError(ValueError):
    """A download that is not allowed, failed or gave the wrong file; the message says which."""


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    max_bytes: int | float = math.inf,
) -> str:
    """Downloads a URL to a file; returns its SHA-256, in hexadecimal digits.

    Dropped connections are tried again, as long as something new arrives or TRIES times. Several
    processes with one target: the others wait for the first, or, on a file system without locks,
    each downloads a file of its own. The file gets its name after size and hash of what is on the
    disk have been checked. A progress bar is shown on a terminal.

    Args:
      size: in bytes, where known.
      sha256: its hash or the first digits of it.
      max_bytes: a larger file is refused.

    Raises:
      DownloadError: the address is not allowed, the server refuses or cannot be reached, the disk
        is full, or size or hash are wrong (what arrived is deleted then). Names URL and fix.
    """
    check_url(url, sha256)
    before = _stamp(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with PartialFile(url, target) as part:
            if _stamp(target) not in (None, before):  # another process was here first
                return file_sha256(target)
            _log.info("Downloading %s to %s", url, target)
            return _Download(url, part, _Expected(size, sha256, max_bytes)).run()
    except OSError as error:
        what = f"cannot be written to {target.parent} ({error.strerror or error})"
        raise DownloadError(f"{url}: {what}; free some space, or use another folder") from error


def check_url(url: str, sha256: str | None = None) -> str:
    """The URL, if it is https, or http of this machine or for a file of known SHA-256.

    Raises:
      DownloadError: for any other URL.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"{url}: invalid URL ({error})") from error
    proven = parts.hostname in _LOOPBACK or _SHA256.fullmatch((sha256 or "").lower())
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and proven)):
        raise DownloadError(f"{url}: only https:// addresses are supported")
    return url


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        return path.stat().st_ino, path.stat().st_mtime_ns
    return None


class _Expected(NamedTuple):
    size: int | None
    sha256: str | None
    max_bytes: int | float


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to allowed addresses only."""

    def __init__(self, sha256: str | None) -> None:
        self._sha256 = sha256

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any):
        """The next request, as urllib makes it; DownloadError for an address not allowed."""
        check_url(newurl, self._sha256)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Download:
    """Fills a PartialFile, in as many tries as it takes."""

    def __init__(self, url: str, part: PartialFile, expected: _Expected):
        self._url, self._part, self._expected = url, part, expected
        self._redirects = _Redirects(expected.sha256)
        self._reached = False

    def run(self) -> str:
        """Downloads what is missing, checks it and gives it its name; returns its SHA-256."""
        part, fruitless, most = self._part, 0, 0
        # disable=None: a bar on terminals only.
        with tqdm(desc=self._name(), unit="B", unit_scale=True, disable=None) as bar:
            while (reason := self._try(bar)) is not None:
                fruitless = 1 if part.size > most else fruitless + 1
                most = max(most, part.size)
                if fruitless == TRIES:
                    raise self._failed(reason)
                _log.warning("%s: %s; trying again", self._url, reason)
                time.sleep(_FIRST_WAIT_SECONDS * 2 ** (fruitless - 1))
        digest = self._check()
        part.keep()
        return digest

    def _try(self, bar: tqdm) -> str | None:
        """Receives what it can; None if the file is complete, else the reason why not."""
        if self._part.size and self._part.size == self._part.total:
            return None
        try:
            response = self._request()
        except urllib.error.HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
            if error.code not in _TEMPORARY:
                raise DownloadError(f"{self._url}: {reason}") from error
            if error.code == 416:  # the file on the server has changed
                self._part.restart(None, None)
            return reason
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error)
            if not self._reached:
                raise self._failed(reason) from error
            return reason
        with response:
            return self._receive(response, bar)

    def _request(self) -> http.client.HTTPResponse:
        headers = {"Accept-Encoding": "identity", "User-Agent": "retinanet_jax"}
        if self._part.size and self._part.version:
            headers |= {"Range": f"bytes={self._part.size}-", "If-Range": self._part.version}
        request = urllib.request.Request(self._url, headers=headers)
        opener = urllib.request.build_opener(self._redirects)
        return opener.open(request, timeout=TIMEOUT_SECONDS)

    def _receive(self, response: http.client.HTTPResponse, bar: tqdm) -> str | None:
        part, self._reached = self._part, True
        if not self._continues(response):
            length = response.headers.get("Content-Length", "")
            part.restart(_version(response), int(length) if length.isdigit() else None)
            if response.status != 200:
                return f"the server answered {response.status} with the wrong part of the file"
        self._check_total()
        bar.total = part.total
        broken = False
        while not broken:
            bar.update(part.size - bar.n)
            try:
                chunk = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                chunk, broken = getattr(error, "partial", b""), True
            if not chunk:
                break
            if part.size + len(chunk) > self._expected.max_bytes:
                part.delete()
                raise DownloadError(f"{self._url}: is larger than {self._expected.max_bytes} bytes")
            part.write(chunk)
        if broken or part.size < (part.total or 0):
            return f"{part.size} of {part.total or 'an unknown number of'} bytes arrived"
        return None

    def _continues(self, response: http.client.HTTPResponse) -> bool:
        """Whether the answer is the rest of what has arrived; if so, notes the total size."""
        part = self._part
        place = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status != 206 or place is None or _version(response) != part.version:
            return False
        start, total = int(place[1]), int(place[2])
        if start != part.size or part.total not in (None, total):
            return False
        part.total = total
        return True

    def _check_total(self) -> None:
        total = self._part.total
        if total is None:
            return
        if self._expected.size not in (None, total):
            self._part.delete()
            what = f"the file on the server has {total} bytes instead of {self._expected.size}"
            raise DownloadError(f"{self._url}: {what}: it has changed there")
        free = shutil.disk_usage(self._part.target.parent).free
        if free < total - self._part.size:
            what = f"needs {total - self._part.size} more bytes, but only {free} are free"
            where = self._part.target.parent
            raise DownloadError(f"{self._url}: {what} in {where}; free some space")

    def _check(self) -> str:
        """Checks size and hash of the file as it is on the disk; returns the hash."""
        part, wanted = self._part, self._expected.sha256
        size, digest = part.measure()
        for expected in (self._expected.size, part.total, part.size):
            if expected not in (None, size):
                part.delete()
                what = f"only {size} of {expected} bytes reached the disk"
                raise DownloadError(f"{self._url}: {what}; they were deleted, try again")
        if wanted and not digest.startswith(wanted.lower()):
            part.delete()
            raise DownloadError(
                f"{self._url}: its SHA-256 is {digest}, but should begin with {wanted}: the file "
                "was changed, or damaged during the download; it was deleted, try again"
            )
        return digest

    def _failed(self, reason: str) -> DownloadError:
        fix = "try again"
        if self._part.size and not self._part.own:
            fix += " to resume"
        return DownloadError(
            f"{self._url}: the download failed ({reason}); {fix}, or save it as "
            f"{self._part.target} yourself"
        )

    def _name(self) -> str:
        return self._url.rsplit("/", 1)[-1]


def _version(response: http.client.HTTPResponse) -> str | None:
    """A validator for If-Range (RFC 9110, 13.1.5): no weak ETag."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified")
