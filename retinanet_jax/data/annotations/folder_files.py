"""Finds the files of a dataset's folder by name in one scan, and reads them as bytes or text."""

import codecs
import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tqdm import tqdm

from retinanet_jax.data.data_errors import GIT_LFS, DataError
from retinanet_jax.data.image_headers import HEIC_SUFFIXES, IMAGE_SUFFIXES

# Of one annotation file that is read as a whole, such as that of one image.
MAX_BYTES = 1 << 28
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What `retinanet-jax detect --out=FOLDER` writes into it: detections are not annotations.
_DETECTIONS = ("detections.coco.json", "detections.csv")
# Of macOS's archives, Synology, QNAP, Windows and Linux: copies, thumbnails and deleted files.
_OF_SYSTEMS = frozenset(
    (
        *("__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin"),
        *("system volume information", "lost+found"),
    )
)
_CHUNK, _THREADS = 64, 8  # files that one task reads; tasks at a time


@dataclasses.dataclass(frozen=True)
class Listing:
    """The sorted names of the files and folders in a folder, but for those of `is_hidden`."""

    path: str
    folders: list[str]
    files: list[str]

    @functools.cached_property
    def _by_suffix(self) -> dict[str, list[str]]:
        found = collections.defaultdict(list)
        for name in self.files:
            found[suffix_of(name)].append(name)
        return dict(found)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Returns the files with one of these suffixes, compared in lower case."""
        return sorted(itertools.chain(*(self._by_suffix.get(s, ()) for s in suffixes)))

    def images(self) -> list[str]:
        """Returns the image files, judged by their suffix: a scan does not open them.

        A HEIC file beside an image of the same name is left out. The image was made from it, since
        tools that cannot read HEIC annotate the copy.
        """
        others = self.with_suffix(*IMAGE_SUFFIXES.difference(HEIC_SUFFIXES))
        heic = self.with_suffix(*HEIC_SUFFIXES)
        if not heic:
            return others
        copied = set(map(stem_of, others))
        return sorted([*others, *(name for name in heic if stem_of(name) not in copied)])


_kept: ContextVar[dict[str, Listing] | None] = ContextVar("kept listings", default=None)


@contextlib.contextmanager
def listings_kept() -> Iterator[None]:
    """Lets `list_folder` scan each folder only once within this context.

    All layouts look at the same folders.
    """
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def list_folder(path: str | Path) -> Listing:
    """Returns the content of a folder; an empty listing if it cannot be read.

    Pipes, devices and the detection files that this package writes are left out.
    """
    kept = _kept.get()
    if kept is None:
        return _scan(str(path))
    if str(path) not in kept:
        kept[str(path)] = _scan(str(path))
    return kept[str(path)]


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder is hidden, or one that a system adds to any folder."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def _scan(path: str) -> Listing:
    folders, files = [], []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_hidden(entry.name) or entry.name in _DETECTIONS:
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    files.append(entry.name)
    except OSError:
        pass
    return Listing(path, sorted(folders), sorted(files))


def walk(path: str | Path, apart: Collection[str] = ()) -> Iterator[Listing]:
    """Yields a folder and all folders below it, ordered by name; each real folder once.

    Args:
      apart: paths of folders that are left out, with all folders below them.
    """
    seen: set[tuple[int, int]] = set()
    pending = [str(path)]
    while pending:
        folder = pending.pop()
        try:
            status = os.stat(folder)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen:  # a symbolic link may lead upwards
            continue
        seen.add((status.st_dev, status.st_ino))
        listing = list_folder(folder)
        yield listing
        inner = (os.path.join(folder, name) for name in reversed(listing.folders))
        pending.extend(path for path in inner if path not in apart)


def has_images(folder: str | Path) -> bool:
    """Returns whether a folder or a folder below it has an image."""
    return any(listing.images() for listing in walk(folder))


def suffix_of(name: str) -> str:
    """Returns the suffix of a file's name in lower case, with its dot; '' if there is none."""
    return os.path.splitext(name)[1].lower()


def stem_of(name: str) -> str:
    """Returns a file's name without its suffix."""
    return os.path.splitext(name)[0]


def subfolder(folder: Path, *names: str) -> Path | None:
    """Returns the first of the named folders in `folder`, ignoring case."""
    present = list_folder(folder).folders
    for name in names:
        if name in present:
            return folder / name
        for other in present:
            if other.lower() == name.lower():
                return folder / other
    return None


def annotation_folders(folder: Path) -> list[Path]:
    """Returns the subfolders that have files, but neither images nor subfolders."""
    inner = [list_folder(folder / name) for name in list_folder(folder).folders]
    return [Path(one.path) for one in inner if one.files and not one.images() and not one.folders]


def relative_name(path: str | Path, root: Path) -> str:
    """Returns the name for RawImage: relative to the dataset's root, with / between folders."""
    name, start = str(path), os.path.join(root, "")
    return name.removeprefix(start).replace(os.sep, "/")


def read_bytes(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """Returns the content of a file.

    Raises:
      DataError: it cannot be read, is not a regular file or is larger than `limit` bytes.
    """
    try:
        if not os.path.isfile(path):  # reading a pipe or a device may never end
            raise OSError("no such file")
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise DataError(
            "annotation file", path, "", what, "check that it exists and can be read"
        ) from error
    if len(data) > limit:
        what, fix = f"is larger than {limit:,} bytes", "check that it is an annotation file"
        raise DataError("annotation file", path, "", what, fix)
    return data


def read_head(path: str | Path, size: int) -> bytes:
    """Returns the first bytes of a file, or no bytes if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return b""


def ascii_head(path: str | Path, size: int) -> bytes:
    """Returns the first bytes of a text file, without the zeros of UTF-16.

    They can be searched for plain ASCII.
    """
    return read_head(path, size).replace(b"\0", b"")


def has_line(path: Path, pattern: re.Pattern[bytes]) -> bool:
    """Returns whether a pattern is in a line of a text file, compared without the zeros of UTF-16.

    False if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return any(pattern.search(line.replace(b"\0", b"")) for line in file)
    except OSError:
        return False


def text_encoding(head: bytes) -> str:
    """Returns the encoding that the byte order mark states, or UTF-8 without one."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")


def decode_text(data: bytes, path: str | Path) -> str:
    """Returns text decoded from UTF-8, or from UTF-16 or UTF-32 with a byte order mark.

    Raises:
      DataError: it is in another encoding; `path` is the file to name.
    """
    encoding = text_encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        what = f"is not text in {encoding.removesuffix('-sig').upper()} ({error.reason})"
        raise DataError("encoding", path, "", what, "save it as UTF-8") from error


def read_text(path: str | Path, limit: int = MAX_BYTES) -> str:
    """Returns the text of a file, decoded as `decode_text` does.

    Raises:
      DataError: the file cannot be read, or is not text.
    """
    return decode_text(read_bytes(path, limit), path)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (number, line) for the lines of a text file of any size that are not blank.

    Raises:
      DataError: it cannot be read, or is not text.
    """
    encoding = text_encoding(read_head(path, 4))
    try:
        with path.open(encoding=encoding) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except (OSError, UnicodeError) as error:
        what = f"cannot be read as text in {encoding} ({error})"
        raise DataError("annotation file", path, "", what, "save it in UTF-8") from error


def parse_json(text: str, path: str | Path, where: str = "") -> Any:
    """Returns the content of JSON text, which may nest a thousand lists and objects.

    Raises:
      DataError: it is not JSON; `path` and `where` name it.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        what, fix = f"is not JSON ({str(error)[:200]})", "export the annotations again"
        if text.startswith(GIT_LFS):
            what, fix = "is a Git LFS pointer, not the file", "run git lfs pull"
        raise DataError("annotation file", path, where, what, fix) from error


def read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields ('line 1', its content) and so on for lines that are not blank.

    A line that is not JSON has an error as its content.

    Raises:
      DataError: the file cannot be read.
    """
    for number, line in read_lines(path):
        yield f"line {number}", json_or_error(line.strip())


def json_or_error(text: str) -> Any:
    """Returns the content of JSON text, or the error that it raises."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return error


def read_many(paths: Sequence[str | Path]) -> Iterator[bytes | DataError]:
    """Yields the contents of many small files in order, with a progress bar.

    A file that cannot be read gives a DataError.

    Threads read ahead: on a remote disk many small files take one latency each.
    """
    if len(paths) <= _CHUNK:
        yield from _read_chunk(paths)
        return
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    progress = tqdm(
        total=len(paths), desc="reading annotations", delay=2, leave=False, disable=None
    )
    with progress, ThreadPoolExecutor(_THREADS, thread_name_prefix="annotations") as pool:
        for start in range(0, len(chunks), 4 * _THREADS):
            for contents in pool.map(_read_chunk, chunks[start : start + 4 * _THREADS]):
                yield from contents
                progress.update(len(contents))


def _read_chunk(paths: Sequence[str | Path]) -> list[bytes | DataError]:
    contents: list[bytes | DataError] = []
    for path in paths:
        try:
            contents.append(read_bytes(path))
        except DataError as error:
            contents.append(error)
    return contents
