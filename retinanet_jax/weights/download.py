"""From a path, an https URL or hf://owner/name/file to a file on this machine.

    path = fetch("https://download.pytorch.org/models/retinanet_resnet50_fpn_coco-eeacb38b.pth")

A download is kept in the cache under its own name, beside a small record of its URL, size and
SHA-256; it is checked against that record whenever it is used again. It gets its name only when
it is complete and right: whatever interrupts it, there is never half a file under that name.
"""

import hashlib
import http.client
import json
import logging
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any

from retinanet_jax.weights.errors import WeightsError

MAX_BYTES = 16 * 2**30
TIMEOUT_SECONDS = 30
_CHUNK = 2**20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# torch and mmdetection end their names with the first digits of the SHA-256; a date is no hash.
_HASH_IN_NAME = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.[A-Za-z.]+$")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


def fetch(
    location: str | os.PathLike,
    cache_dir: str | os.PathLike | None = None,
    *,
    sha256: str | None = None,
) -> Path:
    """The local file of a location, downloaded unless it is in the cache already.

    Args:
        location: a path; an https:// URL; or hf://owner/name/file (hf://owner/name@revision/file).
            Plain http:// is taken from this machine itself only.
        cache_dir: where downloads are kept; by default $RETINANET_JAX_CACHE, or retinanet_jax in
            $XDG_CACHE_HOME or ~/.cache.
        sha256: the file's hash, or its first digits. Without it a hash in the file's name
            (`...-eeacb38b.pth`) and the one that the Hugging Face hub announces are used.

    Raises:
        WeightsError: for a missing file, an address that is not allowed, a failed or incomplete
            download, a wrong size or a wrong hash; it names the location and the mend.
    """
    text = os.fspath(location)
    if "://" not in text:
        return _local_file(Path(text), sha256)
    url = _url(text)
    expected = sha256 or _hash_in_name(url)
    target = _target(url, Path(cache_dir) if cache_dir is not None else default_cache_dir())
    if not _is_intact(target, expected):
        _download(url, target, expected)
    return target


def default_cache_dir() -> Path:
    """$RETINANET_JAX_CACHE, or retinanet_jax in $XDG_CACHE_HOME or ~/.cache."""
    if os.environ.get("RETINANET_JAX_CACHE"):
        return Path(os.environ["RETINANET_JAX_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinanet_jax"


def _local_file(path: Path, sha256: str | None) -> Path:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(f"{path}: {kind}; give a file, an https:// URL or hf://owner/name/file")
    if sha256 and not file_sha256(path).startswith(sha256.lower()):
        raise WeightsError(f"{path}: its SHA-256 does not begin with {sha256}; get the file again")
    return path


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _url(location: str) -> str:
    """The URL of a location; hf:// becomes an address of the hub (or of $HF_ENDPOINT)."""
    if not location.startswith("hf://"):
        return _allowed(location)
    parts = location.removeprefix("hf://").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise WeightsError(f"{location}: write hf://owner/name/file")
    owner, (name, _, revision), file = parts[0], parts[1].partition("@"), parts[2]
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    path = (owner, name, "resolve", urllib.parse.quote(revision or "main", safe=""))
    return _allowed("/".join((hub, *path, urllib.parse.quote(file))))


def _allowed(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise WeightsError(f"{url}: is no URL ({error})") from error
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not (local or (parts.scheme == "https" and parts.hostname)):
        raise WeightsError(f"{url}: only https:// and hf:// addresses and paths are read")
    return url


def _hash_in_name(url: str) -> str | None:
    match = _HASH_IN_NAME.search(urllib.parse.urlsplit(url).path)
    return match[1] if match else None


def _target(url: str, cache_dir: Path) -> Path:
    # Files of the same name from two places must not meet: a folder for each URL.
    base = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", base).lstrip(".")[-128:] or "download"
    return cache_dir / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def _record_path(target: Path) -> Path:
    return target.with_name(target.name + ".record.json")


def _is_intact(target: Path, expected: str | None) -> bool:
    try:
        record = json.loads(_record_path(target).read_text())
        if target.stat().st_size != record["size"]:
            return False
        digest = file_sha256(target)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return digest == record["sha256"] and digest.startswith((expected or "").lower())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to allowed addresses only, and keeps what the hub says on the way."""

    def __init__(self) -> None:
        self.announced: dict[str, str] = {}

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any):
        """The next request, as urllib makes it; raises WeightsError for plain http."""
        self.announced.update({key.lower(): value for key, value in headers.items()})
        return super().redirect_request(req, fp, code, msg, headers, _allowed(newurl))


def _download(url: str, target: Path, expected: str | None) -> None:
    logging.getLogger(__name__).info("Downloading %s to %s", url, target)
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file:
            part = Path(file.name)
            size, digest = _receive(url, file, expected)
            file.flush()
            os.fsync(file.fileno())
        _keep(part, target, {"url": url, "size": size, "sha256": digest})
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{url}: the download failed ({reason}); try again, or fetch the file yourself and"
            f" give its path. Downloads go to {target.parent}"
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _receive(url: str, file: IO[bytes], expected: str | None) -> tuple[int, str]:
    """Writes the answer to `file`; its size and SHA-256, both of them checked."""
    redirects = _Redirects()
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    opener = urllib.request.build_opener(redirects)
    with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
        headers = redirects.announced | {k.lower(): v for k, v in response.headers.items()}
        sizes = _announced_sizes(response, redirects.announced)
        digest, size = hashlib.sha256(), 0
        while chunk := response.read(_CHUNK):
            size += len(chunk)
            if size > MAX_BYTES:
                raise WeightsError(f"{url}: is over {MAX_BYTES} bytes: no checkpoint")
            digest.update(chunk)
            file.write(chunk)
    for announced in sizes:
        if size != announced:
            raise WeightsError(f"{url}: {size} of {announced} bytes arrived; try again")
    _check_hash(url, digest.hexdigest(), expected, headers.get("x-linked-etag", ""))
    return size, digest.hexdigest()


def _announced_sizes(response: Any, announced: dict[str, str]) -> list[int]:
    # X-Linked-Size and X-Linked-ETag are the hub's, for files in its large-file store.
    sizes = (response.headers.get("Content-Length"), announced.get("x-linked-size"))
    return [int(size) for size in sizes if size and size.isdigit()]


def _check_hash(url: str, digest: str, expected: str | None, tag: str) -> None:
    hub = _SHA256.fullmatch(tag)
    for wanted in (expected, hub[1] if hub else None):
        if wanted and not digest.startswith(wanted.lower()):
            raise WeightsError(
                f"{url}: its SHA-256 is {digest[:16]}... and should begin with {wanted[:16]}: the"
                " file was changed or damaged on the way; try again, or give the right hash"
            )


def _keep(part: Path, target: Path, record: dict[str, Any]) -> None:
    # The record last: a file without one counts as not there and is downloaded again.
    _record_path(target).unlink(missing_ok=True)
    part.chmod(0o644)  # temporary files are private, a cache may be shared
    os.replace(part, target)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".part", delete=False) as file:
        json.dump(record, file)
    os.replace(file.name, _record_path(target))
