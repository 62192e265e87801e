"""Reads a split of a layout with one annotation file per split: see split_files.py."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import relative_name
from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.annotations.raw import RawImage, RawObject, RawSplit
from retinanet_jax.data.annotations.split_content import (
    LOST,
    REPLACED,
    Content,
    ImageEntry,
    Region,
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_names import split_of_file
from retinanet_jax.data.data_errors import Guard


def read_split(
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
