"""From a name, a path, an https URL or hf://owner/name/file to a file on this machine.

    path = fetch("torchvision/retinanet_resnet50_fpn_v2")

Downloads are kept in the cache and checked whenever they are used: named weights in
CACHE/weights/FILE, others beside a small record of their URL, size and SHA-256.
"""

import hashlib
import json
import os
import re
import tempfile
import urllib.parse
from pathlib import Path

from retinanet_jax.runtime.download import DownloadError, check_url, download, file_sha256
from retinanet_jax.runtime.user_folders import cache_location
from retinanet_jax.weights.public_weights import PublicWeights, check_name, find_weights
from retinanet_jax.weights.weights_error import WeightsError

MAX_BYTES = 16 * 2**30
# torch and MMDetection end their names with the first digits of the SHA-256; a date is no hash.
_HASH_IN_NAME = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.[A-Za-z.]+$")
_FULL_HASH = re.compile(r"[0-9a-f]{64}")


def fetch(
    location: str | os.PathLike,
    cache_dir: str | os.PathLike | None = None,
    *,
    sha256: str | None = None,
) -> Path:
    """The local file of a location, downloaded unless it is in the cache already.

    Args:
        location: a path; a name of public weights (`retinanet-jax weights` lists them); an https://
            URL; or hf://owner/name/file (hf://owner/name@revision/file), which huggingface_hub
            reads with its own cache and HF_TOKEN. Plain http:// is taken from this machine only.
        cache_dir: folder for downloads; by default, see default_cache_dir.
        sha256: the file's hash, or its first digits. Without it a hash in the file's name
            (`...-eeacb38b.pth`) is used.

    Raises:
        WeightsError: for a missing file, an address that is not allowed, a failed or incomplete
            download, a wrong size or a wrong hash; it names the location and the fix.
    """
    text = os.fspath(location)
    if "://" not in text:
        text = os.path.expanduser(text)
        if not Path(text).exists():
            if (weights := find_weights(text)) is not None:
                return _fetch_named(weights, cache_dir)
            check_name(text)
        return _local_file(Path(text), sha256)
    if text.startswith("hf://"):
        return _fetch_from_hub(text, cache_dir, sha256)
    cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    try:
        url = check_url(text)
        expected = sha256 or _hash_in_name(url)
        target = _target(url, cache)
        if not _is_intact(target, expected):
            _download(url, target, expected)
    except (DownloadError, OSError) as error:
        raise WeightsError(f"{error} (downloads are kept in {cache})") from error
    return target


def is_location(location: str | os.PathLike) -> bool:
    """Whether it is an address, a name of public weights, or a path that exists.

    Raises:
        WeightsError: it looks like a name of public weights, and none has it.
    """
    text = os.fspath(location)
    if "://" in text or Path(text).expanduser().exists() or find_weights(text):
        return True
    check_name(text)
    return False


def default_cache_dir() -> Path:
    """The folder that the default of config.data.cache_dir stands for."""
    try:
        return cache_location().expanduser()
    except RuntimeError as error:  # neither HOME nor an entry of the user database
        raise WeightsError(
            "no home folder to keep downloads in; set RETINANET_JAX_CACHE to a folder"
        ) from error


def cached_path(weights: PublicWeights, cache_dir: str | os.PathLike | None = None) -> Path:
    """Where a file of named weights is kept, whether it is there or not."""
    cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    return cache / "weights" / weights.file_name


def _fetch_named(weights: PublicWeights, cache_dir: str | os.PathLike | None) -> Path:
    target, url = cached_path(weights, cache_dir), _mirrored(weights.url)
    # Sizes are published to 3 digits of MiB.
    limit = int(weights.mib * 2**20) + 2**11 if weights.mib else MAX_BYTES
    try:
        if _is_named(target, weights):
            return target
        download(url, target, sha256=weights.sha256 or None, max_bytes=limit)
        if not _is_named(target, weights):
            size = target.stat().st_size
            target.unlink()
            raise DownloadError(f"{url}: has {size} bytes instead of {weights.mib} MiB")
    except (DownloadError, OSError) as error:
        original = "" if url == weights.url else f" (a copy of {weights.url})"
        raise WeightsError(f"{weights.name}: {error}{original}") from error
    return target


def _is_named(path: Path, weights: PublicWeights) -> bool:
    """Whether a file has the size and the hash that are known of the weights."""
    if not path.is_file() or not path.stat().st_size:
        return False
    if weights.mib and abs(path.stat().st_size / 2**20 - weights.mib) > 1e-3:
        return False
    return not weights.sha256 or file_sha256(path).startswith(weights.sha256)


def _mirrored(url: str) -> str:
    """The URL on $RETINANET_JAX_MIRROR, if that is set: MIRROR/host/path."""
    mirror = os.environ.get("RETINANET_JAX_MIRROR", "").rstrip("/")
    return f"{mirror}/{url.removeprefix('https://')}" if mirror else url


def _local_file(path: Path, sha256: str | None) -> Path:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        fix = "pass a file, a name from `retinanet-jax weights`, an https:// URL or hf:// address"
        raise WeightsError(f"{path}: {kind}; {fix}")
    if sha256 and not file_sha256(path).startswith(sha256.lower()):
        raise WeightsError(f"{path}: its SHA-256 does not begin with {sha256}; download it again")
    return path


def _fetch_from_hub(location: str, cache_dir: str | os.PathLike | None, sha256: str | None) -> Path:
    parts = location.removeprefix("hf://").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise WeightsError(f"{location}: write hf://owner/name/file")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        fix = "pip install 'retinanet_jax[hub]', or pass the file's https:// URL"
        raise WeightsError(f"{location}: hf:// addresses need huggingface_hub; {fix}") from error
    owner, (name, _, revision), file = parts[0], parts[1].partition("@"), parts[2]
    try:
        path = hf_hub_download(
            f"{owner}/{name}",
            file,
            revision=revision or None,
            cache_dir=None if cache_dir is None else Path(cache_dir) / "hub",
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except Exception as error:  # of the hub, of the connection, of the disk
        raise WeightsError(f"{location}: {_first_line(error)}") from error
    path = Path(path)
    # The cache names large files by their SHA-256.
    blob = path.resolve().name
    for expected in (sha256, blob if _FULL_HASH.fullmatch(blob) else None):
        if expected and not file_sha256(path).startswith(expected.lower()):
            fix = f"delete {path.resolve()} and try again"
            raise WeightsError(f"{location}: its SHA-256 does not begin with {expected}; {fix}")
    return path


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'failed'}"


def _hash_in_name(url: str) -> str | None:
    match = _HASH_IN_NAME.search(urllib.parse.urlsplit(url).path)
    return match[1] if match else None


def _target(url: str, cache_dir: Path) -> Path:
    # A folder for each URL: two files may have one name.
    base = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", base).lstrip(".")[-128:] or "download"
    return cache_dir / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def _record_path(target: Path) -> Path:
    return target.with_name(target.name + ".record.json")


def _is_intact(target: Path, expected: str | None) -> bool:
    try:
        record = json.loads(_record_path(target).read_text(encoding="utf-8"))
        if target.stat().st_size != record["size"]:
            return False
        digest = file_sha256(target)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return digest == record["sha256"] and digest.startswith((expected or "").lower())


def _download(url: str, target: Path, expected: str | None) -> None:
    digest = download(url, target, sha256=expected, max_bytes=MAX_BYTES)
    # The record last: a file without its record is downloaded again.
    record = {"url": url, "size": target.stat().st_size, "sha256": digest}
    with tempfile.NamedTemporaryFile(
        "w", dir=target.parent, suffix=".part", delete=False, encoding="utf-8"
    ) as file:
        json.dump(record, file)
    os.replace(file.name, _record_path(target))
