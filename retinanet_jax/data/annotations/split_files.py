"""Layouts with one annotation file per split, which lists images by name with their shapes.

A split may also have several files with different images, such as one for each image. A module of
such a layout parses its file into entries and computes the box of a shape. Finding the files and
the images, and the checks of names, are shared.
"""

import collections
import contextlib
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import (
    annotation_folders,
    has_images,
    list_folder,
    relative_name,
    stem_of,
)
from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.annotations.outlines import Box
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawObject, RawSplit
from retinanet_jax.data.annotations.split_names import (
    is_split_name,
    split_in_name,
    split_of_file,
    without_split,
)
from retinanet_jax.data.data_errors import DataError, Guard, Report

OUTLINE = "polygons, ellipses, masks or rotated boxes, bounding boxes used"
REPLACED = "images that also are in the file of another job, the latest boxes used"
NO_BOX = "points and lines, left out"
LOST = "images of a split that was not found, left out"
_FOLDERS = ("annotations", "labels")
_MAX_FILES = 20  # by which a folder is judged; one with more of a format has one for each image


class Region(NamedTuple):
    """A shape of an image, with unchecked `label` and `shape` as in the file.

    crowd: see raw.RawObject.
    """

    where: str
    label: Any
    shape: Any
    crowd: bool = False


class ImageEntry(NamedTuple):
    """An image of an annotation file.

    names: unchecked names as stated, and variants; the first that exists is used. Without names,
        the image is left out, and only its notes are reported.
    where: the entry in the file, for messages.
    regions: shapes of the image.
    size: annotated (height, width) in pixels.
    split: split of the image, if one file has several splits.
    notes: reasons as in RawSplit.notes.
    history: the jobs that annotated the image, each adjusting the one before, where a file says so.
        The entry of another file whose history is the beginning of it is out of date.
    """

    names: Sequence[Any]
    where: str
    regions: Sequence[Region]
    size: tuple[int, int] | None = None
    split: str | None = None
    notes: Sequence[str] = ()
    history: Sequence[Any] = ()


class Content(NamedTuple):
    """The content of an annotation file; `class_names` None uses the names that occur."""

    entries: list[ImageEntry]
    class_names: tuple[str, ...] | None = None
    notes: tuple[tuple[str, str], ...] = ()


class SplitFileFormat(NamedTuple):
    """A layout with one annotation file per split.

    name, tool: see raw.Layout.
    suffixes: suffixes of the annotation files.
    is_one: whether a file is of this format, by its first bytes.
    parse: returns the content of a file; the guard collects errors of single entries.
    box: returns x, y, width, height around a shape, or None for a shape without a box. Arguments
        are the shape, the file and entry for messages, and a set for notes.
    inner_splits: returns the names of the splits in a file; none if the file is one split.
    normalized: whether boxes are fractions of the image size.
    image_folders: more folders of the images of a split, with '{split}' for its name, relative to
        the dataset's folder.
    box_form: how the files write a box, see RawSplit.
    """

    name: str
    tool: str
    suffixes: tuple[str, ...]
    is_one: Callable[[Path], bool]
    parse: Callable[[Path, Guard], Content]
    box: Callable[[Any, Path, str, set[str]], Box | None]
    inner_splits: Callable[[Path], Sequence[str]] = lambda path: ()
    normalized: bool = False
    image_folders: tuple[str, ...] = ()
    box_form: str = "size"


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
    read = functools.partial(_read_split, kind, folder, files)
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


def _read_split(
    kind: SplitFileFormat,
    root: Path,
    files: dict[str, tuple[Path, ...]],
    split: str,
    guard: Guard,
) -> RawSplit:
    """The images of a split with their objects; see raw.Layout."""
    paths = files[split]
    contents = list(_without_older(_contents(kind, paths, guard)))
    finders = _finders(kind, root, files, split, contents)
    images, notes, listed = [], [], []
    for path, content in contents:
        notes.extend(content.notes)
        listed.append(content.class_names)
        for entry in content.entries:
            if entry.split not in (None, split):
                if path not in files.get(entry.split, ()):
                    notes.append((LOST, f"{path}: {entry.where}"))
                continue
            notes.extend((reason, f"{path}: {entry.where}") for reason in entry.notes)
            if not entry.names:
                continue
            with guard:
                image = finders[path.parent].find_first(entry.names, path, entry.where)
                found: set[str] = set()
                objects = []
                for region in entry.regions:
                    with guard:
                        objects += _objects(region, kind, content.class_names, entry, path, found)
                notes.extend((reason, f"{path}: {entry.where}") for reason in sorted(found))
                place = relative_name(image, root), Path(image), path
                fields_of_image = tuple(objects), entry.where, entry.size, kind.normalized
                images.append(RawImage(*place, *fields_of_image))
    notes.extend(itertools.chain(*(finder.notes for finder in finders.values())))
    names = None if None in listed else tuple(dict.fromkeys(itertools.chain(*listed)))
    return RawSplit(tuple(images), names, notes=tuple(notes), box_form=kind.box_form)


def _finders(
    kind: SplitFileFormat,
    root: Path,
    files: dict[str, tuple[Path, ...]],
    split: str,
    contents: Sequence[tuple[Path, Content]],
) -> dict[Path, ImageFinder]:
    """The finder of the images of a split, by the folder of the annotation files."""
    paths = files[split]
    # A file with several splits may name images of any folder, and so may one without a split in
    # its name.
    in_files = list(itertools.chain(*files.values()))
    alone = len(set(in_files)) < len(in_files)
    alone |= len(files) == 1 and any(split_of_file(path, root) != split for path in paths)
    own = [root / place.format(split=split) for place in kind.image_folders]

    def stated() -> Iterator[Any]:
        """The names of the images; the further ones of an entry are variants."""
        for _, content in contents:
            for entry in content.entries:
                if entry.names and entry.split in (None, split):
                    yield entry.names[0]

    finders = {}
    for folder in {path.parent for path in paths}:
        bases = (*own, folder, root, root / "images", root / split, root / "images" / split)
        finders[folder] = ImageFinder(root, "" if alone else split, bases, stated)
    return finders


def _contents(
    kind: SplitFileFormat, paths: Sequence[Path], guard: Guard
) -> Iterator[tuple[Path, Content]]:
    """The files with their contents; one broken file of many is an error like that of an entry."""
    for path in paths:
        content = None
        with guard if len(paths) > 1 else contextlib.nullcontext():
            content = kind.parse(path, guard)
        if content is not None:
            yield path, content


def _without_older(contents: Iterable[tuple[Path, Content]]) -> Iterator[tuple[Path, Content]]:
    """The contents of files; of an image with a history, the latest entry alone."""
    contents, latest = list(contents), {}
    for path, content in contents:
        for entry in content.entries:
            if entry.history and len(entry.history) > latest.get(entry.names[0], (path, 0))[1]:
                latest[entry.names[0]] = path, len(entry.history)
    for path, content in contents:
        kept, notes = [], list(content.notes)
        for entry in content.entries:
            if entry.history and latest[entry.names[0]][0] != path:
                notes.append((REPLACED, f"{path}: {entry.where}"))
            else:
                kept.append(entry)
        yield path, content._replace(entries=kept, notes=tuple(notes))


def _objects(
    region: Region,
    kind: SplitFileFormat,
    class_names: tuple[str, ...] | None,
    entry: ImageEntry,
    path: Path,
    found: set[str],
) -> list[RawObject]:
    """The object of a region; none for a shape without a box."""
    where = f"{entry.where}: {region.where}"
    box = kind.box(region.shape, path, where, found)
    if box is None:
        return []
    name = fields.class_name(region.label, class_names, path, where)
    return [RawObject(name, box, region.where, crowd=region.crowd)]
