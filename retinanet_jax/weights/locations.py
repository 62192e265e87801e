"""From a path, an https URL or hf://owner/name/file to a file on this machine.

    path = fetch("https://download.pytorch.org/models/retinanet_resnet50_fpn_coco-eeacb38b.pth")

A download is kept in the cache under its own name, beside a small record of its URL, size and
SHA-256; it is checked against that record whenever it is used again.
"""

import hashlib
import json
import os
import re
import tempfile
import urllib.parse
from pathlib import Path

from retinanet_jax.runtime.download import DownloadError, check_url, download, file_sha256
from retinanet_jax.weights.weights_error import WeightsError

MAX_BYTES = 16 * 2**30
# torch and mmdetection end their names with the first digits of the SHA-256; a date is no hash.
_HASH_IN_NAME = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.[A-Za-z.]+$")


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
            download, a wrong size or a wrong hash; it names the location and the fix.
    """
    text = os.fspath(location)
    if "://" not in text:
        return _local_file(Path(text), sha256)
    cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    try:
        url = _url(text)
        expected = sha256 or _hash_in_name(url)
        target = _target(url, cache)
        if not _is_intact(target, expected):
            _download(url, target, expected)
    except (DownloadError, OSError) as error:
        raise WeightsError(f"{error} (downloads are kept in {cache})") from error
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


def _url(location: str) -> str:
    """The URL of a location; hf:// becomes an address of the hub (or of $HF_ENDPOINT)."""
    if not location.startswith("hf://"):
        return check_url(location)
    parts = location.removeprefix("hf://").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise WeightsError(f"{location}: write hf://owner/name/file")
    owner, (name, _, revision), file = parts[0], parts[1].partition("@"), parts[2]
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    path = (owner, name, "resolve", urllib.parse.quote(revision or "main", safe=""))
    return check_url("/".join((hub, *path, urllib.parse.quote(file))))


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


def _download(url: str, target: Path, expected: str | None) -> None:
    digest = download(url, target, sha256=expected, max_bytes=MAX_BYTES)
    # The record last: a file without its record counts as not there and is downloaded again.
    record = {"url": url, "size": target.stat().st_size, "sha256": digest}
    with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".part", delete=False) as file:
        json.dump(record, file)
    os.replace(file.name, _record_path(target))
