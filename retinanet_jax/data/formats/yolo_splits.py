"""Finds the folders of images of each split in a YOLO dataset that no file describes."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations.class_lists import CLASS_FILES
from retinanet_jax.data.annotations.folder_files import list_folder, stem_of, subfolder, walk
from retinanet_jax.data.annotations.split_names import is_split_name, is_training
from retinanet_jax.data.formats.yolo_label_folder import (
    IMAGE_FOLDERS,
    label_folder,
    split_folders,
    stems_of_texts,
)

# The last is that of Roboflow's Darknet export.
YOLO_CLASS_FILES = (*CLASS_FILES, "obj.names", "_darknet.labels")


class SplitPlaces(NamedTuple):
    """Where the images of a dataset are.

    splits: a folder of images by split.
    apart: folders in that of 'train' that are other splits.
    loose: images beside the split folders, which are left out.
    """

    splits: dict[str, Path]
    apart: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()


def find_places(root: Path) -> SplitPlaces | None:
    """Returns images/ or the folders in it, split folders, or the root with labels beside images.

    Images beside the split folders are those of 'train' if no folder is, and they have labels.
    None means that the root has several datasets.
    """
    named, images = split_folders(root), _images_in(root)
    outer = {split: _images_in(folder) or folder for split, folder in named.items()}
    inner = split_folders(images) if images else {}
    if images and any(label_folder(str(p)) != str(p) for p in (images, *inner.values())):
        outer = {s: f for s, f in outer.items() if s not in inner and any(_labelled(f))}
        found = _divided(images, outer | inner, set(map(str, inner.values())))
        beside = () if images in found.splits.values() else _images(images, inner.values())
        further = _labelled(root, {str(images), *(str(named[split]) for split in outer)})
        return found._replace(loose=(*beside, *further))
    apart = set(map(str, named.values()))
    found = _divided(root, outer, apart)
    if root in found.splits.values():
        return None if _has_divided_folder(root, apart) else found
    return found._replace(loose=tuple(_labelled(root, apart)))


def _divided(folder: Path, splits: dict[str, Path], apart: Collection[str]) -> SplitPlaces:
    """The splits of a folder; what is in no folder `apart` is 'train' if it has labels."""
    if not splits:
        return SplitPlaces({"train": folder})
    if not any(map(is_training, splits)) and any(_labelled(folder, apart)):
        return SplitPlaces({"train": folder, **splits}, tuple(sorted(apart)))
    return SplitPlaces(splits)


def _images(folder: Path, apart: Iterable[Path]) -> Iterator[str]:
    for listing in walk(folder, set(map(str, apart))):
        yield from (os.path.join(listing.path, name) for name in listing.images())


def _labelled(folder: Path, apart: Collection[str] = ()) -> Iterator[str]:
    """The images below a folder that have a file with the name of their labels."""
    for listing in walk(folder, apart):
        images = listing.images()
        texts = stems_of_texts(label_folder(listing.path)) if images else set()
        named = (name for name in images if name in texts or stem_of(name) in texts)
        yield from (os.path.join(listing.path, name) for name in named)


def _images_in(folder: Path) -> Path | None:
    """The folder of images in a folder, also in another of such a name: images/images/."""
    images = subfolder(folder, *IMAGE_FOLDERS)
    listing = list_folder(images) if images else None
    if listing and len(listing.folders) == 1 and not listing.images():
        return _images_in(images) or images
    return images


def _has_divided_folder(root: Path, apart: Collection[str]) -> bool:
    """Whether a folder below is a dataset of its own: it has splits, or images/ and labels/.

    Or, unlike `root`, a list of classes. Folders `apart` do not count.
    """
    for listing in walk(root, apart):
        folders = (n for n in listing.folders if os.path.join(listing.path, n) not in apart)
        names = {name.lower() for name in folders}
        if any(map(is_split_name, names)) or {"images", "labels"} <= names:
            return True
        files = {name.lower() for name in listing.files}
        if listing.path != str(root) and files & {"obj.data", *YOLO_CLASS_FILES}:
            return not set(map(str.lower, list_folder(root).files)) & set(YOLO_CLASS_FILES)
    return False
