"""Finds images that a reader did not find at the place where its annotations have them.

They may be in other folders than the annotations, as extracted archives often have them:
labels/labels/train.json beside images/images/train/. The layout is then found in one of several
folders of the dataset, and this folder has no images. In a folder with images, only the spelling of
a file's name may differ.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from retinanet_jax.data.annotations.folder_files import (
    has_images,
    list_folder,
    relative_name,
    stem_of,
)
from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawSplit
from retinanet_jax.data.annotations.split_names import split_of_file
from retinanet_jax.data.data_errors import DataError, Guard


def with_missing_images(root: Path, layout: Layout, place: Path) -> Layout:
    """Returns the layout of a place in `root`, which then finds images that are missing there.

    If the place has no images, those of `root` are searched, and changes in it are detected.
    """
    if place == root or has_images(place) or not has_images(root):
        return layout._replace(read=functools.partial(_read_beside, layout))
    outside = [folder for folder in layout.folders if not folder.is_relative_to(root)]
    read = functools.partial(_read_elsewhere, layout, root, place)
    return layout._replace(read=read, folders=(root, *outside))


def _read_beside(layout: Layout, split: str, guard: Guard) -> RawSplit:
    """What the layout reads, with files of another spelling in the folders of missing ones."""
    raw = layout.read(split, guard)
    missing = _missing(raw)
    folders = {image.path.parent for image in missing}
    names: dict[Path, list[str]] = {folder: [] for folder in folders}
    for image in raw.images if missing else ():
        if isinstance(image.path, Path) and image.path.parent in names:
            names[image.path.parent].append(image.path.name)
    finders = {
        folder: ImageFinder(folder, "", [folder], names[folder].copy, elsewhere=False)
        for folder in folders
    }

    def find(image: RawImage) -> RawImage:
        finder = finders[image.path.parent]
        found = finder.find(image.path.name, image.annotation_file, image.where)
        return image._replace(path=Path(found)) if finder.exists(found) else image

    return _replaced(raw, missing, find, list(finders.values()), guard)


def _read_elsewhere(layout: Layout, root: Path, place: Path, split: str, guard: Guard) -> RawSplit:
    """What the layout reads in `place`, with the missing images from wherever in `root` they are.

    A name without its suffix counts only if no image is found by a whole name, since the reader
    then had to guess the suffixes: else masks would replace photographs that are missing.
    """
    raw = layout.read(split, guard)
    missing = _missing(raw)
    if len(layout.splits) == 1 and not any(split_of_file(i.annotation_file, root) for i in missing):
        split = ""  # a name that the reader chose

    def names() -> list[str]:
        return [relative_name(i.path, place) for i in raw.images if isinstance(i.path, Path)]

    finder, name_of = ImageFinder(root, split, [root], names), str

    def find(image: RawImage) -> RawImage:
        name = name_of(relative_name(image.path, place))
        found = finder.find(name, image.annotation_file, image.where)
        if not finder.exists(found):
            return image
        return image._replace(path=Path(found), file_name=relative_name(found, root))

    def is_found(image: RawImage) -> bool:
        with contextlib.suppress(DataError):
            return find(image) is not image
        return False

    name_of = str if any(map(is_found, missing)) else stem_of
    return _replaced(raw, missing, find, [finder], guard)


def _missing(raw: RawSplit) -> list[RawImage]:
    """The images whose files do not exist. Folders are listed, which is faster than files."""
    images = [image for image in raw.images if isinstance(image.path, Path)]
    files = {folder: set(list_folder(folder).files) for folder in {i.path.parent for i in images}}
    unlisted = [image for image in images if image.path.name not in files[image.path.parent]]
    return [image for image in unlisted if not os.path.isfile(image.path)]


def _replaced(
    raw: RawSplit,
    missing: Sequence[RawImage],
    find: Callable[[RawImage], RawImage],
    finders: Sequence[ImageFinder],
    guard: Guard,
) -> RawSplit:
    """The split with the missing images as `find` returns them, and the notes of the finders."""
    images, ids = [], set(map(id, missing))
    for image in raw.images:
        with guard:
            images.append(find(image) if id(image) in ids else image)
    notes = itertools.chain(raw.notes, *(finder.notes for finder in finders))
    return raw._replace(images=tuple(images), notes=tuple(notes))
