"""Size and EXIF orientation of the images of a folder, checked once and cached.

Each image is decoded once, to check it. A table in the cache keeps the result by the file's path,
size and modification time; a changed file is decoded again.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from retinanet_jax.data import images as images_lib
from retinanet_jax.data.annotations.check_split import ImageFacts
from retinanet_jax.data.annotations.folder_files import is_hidden, suffix_of
from retinanet_jax.data.archives import FilePart
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES
from retinanet_jax.data.record_files import RECORD_SUFFIXES
from retinanet_jax.data.store.cache_files import pack_names, read_arrays, unpack_names, write_arrays
from retinanet_jax.runtime.cores import available_cores

# Files that may be annotations or images; others, such as logs, do not count as changes.
_SUFFIXES = IMAGE_SUFFIXES | frozenset(
    (
        *(".json", ".jsonl", ".ndjson", ".xml", ".csv", ".tsv", ".txt", ".yaml", ".yml"),
        *(".names", ".data", ".labels", ".manifest", ".pbtxt", *RECORD_SUFFIXES),
    )
)
_NAMES = (f"{os.sep}README.md",)  # names the classes of an imagefolder
_AHEAD = 256  # images in work at a time


# By which a changed file is recognized: bytes, and nanoseconds of its modification time. A plain
# tuple: there may be a million of them at every start.
Stamp = tuple[int, int]
Stamps = dict[str, Stamp]


def stamp_files(places: Iterable[Path]) -> Stamps:
    """Returns the stamps of some files, and of all files below some folders, by path.

    Files and folders that `is_hidden` are left out.
    """
    found: Stamps = {}
    seen: set[tuple[int, int]] = set()
    waiting = []
    for place in places:
        if place.is_file():
            status = place.stat()
            found[os.fspath(place)] = status.st_size, status.st_mtime_ns
        else:
            waiting.append(os.fspath(place))
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                try:
                    status = entry.stat()
                except OSError:  # a dead link, or gone meanwhile
                    continue
                if not entry.is_dir():
                    found[entry.path] = status.st_size, status.st_mtime_ns
                elif not entry.is_symlink() or _is_new(status, seen):
                    waiting.append(entry.path)
    return found


def _is_new(status: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    """Whether a link leads to a folder for the first time; links may form circles."""
    place = status.st_dev, status.st_ino
    return not (place in seen or seen.add(place))


def fingerprint(stamps: Stamps, suffixes: Collection[str] = ()) -> str:
    """Returns a digest of all files that may be images or annotations; `suffixes`: further ones."""
    counted = _SUFFIXES.union(suffixes)
    lines = [
        f"{path}\0{size}\0{mtime}"
        for path, (size, mtime) in stamps.items()
        # A name without a dot may be an image.
        if path[path.rfind(".") :].lower() in counted
        or path.find(".", path.rfind(os.sep)) < 0
        or path.find("-of-", path.rfind(os.sep)) >= 0  # train.record-00000-of-00010
        or path.endswith(_NAMES)
    ]
    text = "\n".join(sorted(lines)).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def is_image_name(path: str) -> bool:
    """Returns whether a path has the suffix of an image."""
    return suffix_of(path) in IMAGE_SUFFIXES


def stamp_of(path: Path | FilePart, stamps: Stamps) -> Stamp:
    """Returns the stamp of a file or part of it, read from disk if it is not in `stamps`.

    Raises:
      DataError: the file does not exist.
    """
    path = path.file if isinstance(path, FilePart) else path
    found = stamps.get(os.fspath(path))
    if found is not None:
        return found
    try:
        if not path.is_file():
            what = "No such file (folders, pipes and devices are not read)"
            raise FileNotFoundError(errno.ENOENT, what)
        status = path.stat()
    except (OSError, ValueError) as error:
        raise images_lib.missing_image(path, error) from error
    return status.st_size, status.st_mtime_ns


class FactTable:
    """Facts of images, by path and stamp of their files, kept in a file of the cache."""

    def __init__(self, path: Path):
        self._path = path
        self._rows: dict[str, tuple[Stamp, ImageFacts]] = {}
        stored = read_arrays(path)
        if stored is not None:
            names, changes = (unpack_names(stored[key]) for key in ("paths", "changes"))
            numbers = stored["numbers"].tolist()
            for name, change, (size, mtime, h, w, turn) in zip(
                names, changes, numbers, strict=True
            ):
                facts = ImageFacts((h, w), turn, tuple(filter(None, change.split("|"))))
                self._rows[name] = (size, mtime), facts

    def get(self, path: Path | FilePart, stamp: Stamp) -> ImageFacts | None:
        """Returns the facts of an image whose file has this stamp; None if they are not known."""
        known = self._rows.get(str(path))
        return known[1] if known is not None and known[0] == stamp else None

    def add_missing(
        self, paths: Sequence[Path | FilePart], stamps: Stamps
    ) -> dict[Path | FilePart, DataError]:
        """Decodes the images that are not known yet; returns errors by path."""
        errors: dict[Path | FilePart, DataError] = {}
        waiting: list[tuple[Path | FilePart, Stamp]] = []
        for path in dict.fromkeys(paths):
            try:
                stamp = stamp_of(path, stamps)
            except DataError as error:
                errors[path] = error
                continue
            if self.get(path, stamp) is None:
                waiting.append((path, stamp))
        for (path, stamp), found in _in_threads(waiting):
            if isinstance(found, DataError):
                errors[path] = found
            else:
                self._rows[str(path)] = stamp, found
        if waiting:
            self._write()
        return errors

    def _write(self) -> None:
        """Keeps the rows of images that still exist, so that the table does not grow."""
        self._rows = {path: row for path, row in self._rows.items() if _exists(path, row[0])}
        rows = self._rows.values()
        numbers = [(*stamp, *facts.size, facts.orientation) for stamp, facts in rows]
        write_arrays(
            self._path,
            paths=pack_names(list(self._rows)),
            changes=pack_names(["|".join(facts.changes) for _, facts in rows]),
            numbers=np.array(numbers, np.int64).reshape(-1, 5),
        )


def _exists(path: str, stamp: Stamp) -> bool:
    """Whether there is a file of this path, or one of this stamp of which it is a part."""
    if os.path.exists(path):
        return True
    with contextlib.suppress(OSError):
        status = os.stat(os.path.dirname(path))  # the file of which `path` names some bytes
        return (status.st_size, status.st_mtime_ns) == stamp
    return False


def _in_threads(
    waiting: list[tuple[Path | FilePart, Stamp]],
) -> Iterator[tuple[tuple[Path | FilePart, Stamp], ImageFacts | DataError]]:
    progress = tqdm(total=len(waiting), desc="checking images", unit="image", disable=None, delay=1)
    with ThreadPoolExecutor(min(8, available_cores())) as pool, progress:
        for start in range(0, len(waiting), _AHEAD):
            some = waiting[start : start + _AHEAD]
            for item, found in zip(some, pool.map(_inspect, [p for p, _ in some]), strict=True):
                progress.update()
                yield item, found


def _inspect(path: Path | FilePart) -> ImageFacts | DataError:
    try:
        data = images_lib.read_file(path)
        image = images_lib.decode(data, str(path))
    except DataError as error:
        return error
    size = image.shape[:2]
    return ImageFacts(size, images_lib.exif_orientation(data), images_lib.changes_of(data))
