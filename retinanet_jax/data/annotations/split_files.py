"""Layouts with one annotation file per split, which lists images by name with their shapes.

A split may also have several files with different images, such as one for each image. A module of
such a layout parses its file into entries and computes the box of a shape (split_content.py).
Finding the files (here) and reading them with their images (split_file_reading.py) are shared.
"""

import collections
import contextlib
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePath

from retinanet_jax.data.annotations.folder_files import (
    annotation_folders,
    has_images,
    list_folder,
    relative_name,
    stem_of,
)
from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_content import Content, ImageEntry, SplitFileFormat
from retinanet_jax.data.annotations.split_file_reading import read_split
from retinanet_jax.data.annotations.split_names import (
    is_split_name,
    split_in_name,
    split_of_file,
    without_split,
)
from retinanet_jax.data.data_errors import DataError, Guard, Report

_FOLDERS = ("annotations", "labels")
_MAX_FILES = 20  # by which a folder is judged; one with more of a format has one for each image


def find_layout_of(kind: SplitFileFormat, root: Path, others: Sequence[str] = ()) -> Layout | None:
    """Returns the layout of a format's files in a folder and its split folders, or of one file.

    Args:
      others: folders in `root` to search if no file is found, such as 'labels/det_20'.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    folder = root if root.is_dir() else _folder_of(root, others)
    paths = files_of(kind, root, others)
    if not paths:
        return None
    by_split: dict[str, list[Path]] = {}
    in_folder = collections.defaultdict(list)
    for path in paths:
        in_folder[path.parent].append(path)
    of_images = {place: _are_of_images(kind, folder, inner) for place, inner in in_folder.items()}
    for path in paths:
        # The names of files of an image each are those of images, which do not name a split.
        stated = path.parent / "annotations" if of_images[path.parent] else path
        named = split_of_file(stated, folder) or "train"
        for split in kind.inner_splits(path) or [named]:
            by_split.setdefault(split, []).append(path)
    files = {split: _joined(kind, root, split, found) for split, found in by_split.items()}
    read = functools.partial(read_split, kind, folder, files)
    return Layout(kind.name, kind.tool, tuple(files), read, (folder,), suffixes=kind.suffixes)


def _are_of_images(kind: SplitFileFormat, root: Path, paths: Sequence[Path]) -> bool:
    """Whether each file of a folder is that of one image: there are many, or it has its name."""
    if len(paths) > _MAX_FILES:
        return True
    if not any(split_in_name(path.stem) for path in paths):
        return False
    places = [paths[0].parent, root, *(root / name for name in list_folder(root).folders)]
    images = {name for place in places for name in list_folder(place).images()}
    images |= set(map(stem_of, images))
    return all(path.stem in images and _has_one_entry(kind, path) for path in paths)


def _has_one_entry(kind: SplitFileFormat, path: Path) -> bool:
    with contextlib.suppress(DataError):
        return len(kind.parse(path, Guard("skip", Report())).entries) == 1
    return False


def files_of(kind: SplitFileFormat, root: Path, others: Sequence[str] = ()) -> list[Path]:
    """Returns the files of a format in a folder, or the one file; see `find_layout_of`."""
    further = [*annotation_folders(root), *(root / place for place in others)]
    return _paths(kind, root) or _paths_in(kind, further)


def _folder_of(path: Path, others: Sequence[str]) -> Path:
    """The folder of the images of an annotation file: around annotations/, or one of `others`."""
    folder = path.parent
    if list_folder(folder).images():
        return folder
    depths = [len(PurePath(p).parts) for p in (*others, *_FOLDERS) if _ends_with(folder, p)]
    around = [folder.parents[depth - 1] for depth in depths]
    return next(filter(has_images, around), around[0] if around else folder)


def _ends_with(folder: Path, place: str) -> bool:
    return str(folder).lower().endswith(f"/{place.lower()}")


def _paths(kind: SplitFileFormat, root: Path) -> list[Path]:
    """The files of a format in a folder and its split folders, or the one file."""
    if root.is_file():
        return [root] if root.suffix.lower() in kind.suffixes and kind.is_one(root) else []
    names = [n for n in list_folder(root).folders if is_split_name(n) or n.lower() in _FOLDERS]
    return _paths_in(kind, [root, *(root / name for name in names)])


def _paths_in(kind: SplitFileFormat, folders: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for folder in folders:
        paths = [folder / name for name in list_folder(folder).with_suffix(*kind.suffixes)]
        if any(map(kind.is_one, paths[:_MAX_FILES])):
            ones = list(filter(kind.is_one, paths))
            found |= dict.fromkeys([*ones, *_of_other_splits(ones, paths)])
    return list(found)


def _of_other_splits(ones: Sequence[Path], paths: Sequence[Path]) -> list[Path]:
    """The files with the name of one of the format but for the split: val.json beside train.json.

    They are of the format, too, although their first bytes do not show it: they begin with many
    images without objects, or are broken, which reading them says.
    """
    names = {without_split(path.name) for path in ones if path.suffix.lower() != ".txt"} - {None}
    if not names or len(paths) > _MAX_FILES:
        return []
    return [path for path in paths if path not in ones and without_split(path.name) in names]


def _joined(kind: SplitFileFormat, root: Path, split: str, paths: list[Path]) -> tuple[Path, ...]:
    """The files of a split: all that list different images, one of those that state the same.

    Also those of jobs of which one adjusted the boxes of the other, see ImageEntry.history.

    Raises:
      DataError: two files differ about an image.
    """
    if len(paths) == 1 or len(paths) > _MAX_FILES:
        return tuple(paths)
    kept: dict[Path, Content | None] = {}
    first: dict[str, tuple[Path, ImageEntry]] = {}
    digests: set[bytes] = set()
    for path in paths:
        digest, content = _digest(path), None
        if digest in digests:
            continue  # a copy
        with contextlib.suppress(DataError):  # which reading it will raise
            content = kind.parse(path, Guard("skip", Report()))
        if content is not None and content in kept.values():
            continue  # as the project of a tool and its export do
        entries = content.entries if content is not None else []
        # The other names of an entry are guesses, which may be those of other images.
        named = {str(e.names[0]): e for e in entries if e.names and e.split in (None, split)}
        for name in sorted(named):
            other, entry = first.get(name, (path, named[name]))
            if other != path and not _have_one_meaning(entry, named[name]):
                both = (relative_name(one, root) for one in (other, path))
                what = f"both {' and '.join(both)} annotate {split!r}"
                fix = f"set data.root to one of the files, or move one of them out of {root}"
                raise DataError("ambiguous file", root, "", what, fix)
            if len(named[name].history) >= len(entry.history):
                first[name] = path, named[name]
        kept[path] = content
        if digest is not None:
            digests.add(digest)
    return tuple(kept)


def _have_one_meaning(one: ImageEntry, other: ImageEntry) -> bool:
    """Whether two entries of an image are of the same jobs, or one of a job that adjusted them."""
    older, newer = sorted((one, other), key=lambda entry: len(entry.history))
    if len(older.history) == len(newer.history):
        same = older.history == newer.history and older.regions == newer.regions
        return bool(older.history) and same
    return bool(older.history) and newer.history[: len(older.history)] == older.history


def _digest(path: Path) -> bytes | None:
    """A hash of the content of a file; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
