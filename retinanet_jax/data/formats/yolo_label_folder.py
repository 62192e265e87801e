"""Finds the folder with the labels for a folder of images, in a YOLO dataset."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from retinanet_jax.data.annotations.folder_files import list_folder, stem_of, subfolder, walk
from retinanet_jax.data.annotations.split_names import is_split_name

IMAGE_FOLDERS = ("images", "imgs", "img", "image")
# As a word of a name: images, train_images; VOC's JPEGImages, too, as Darknet has it.
_IMAGES = re.compile(r"(?<![a-z])(jpeg)?(images?|imgs?)(?![a-z])", re.IGNORECASE)
_LABELS = ("labels", "label", "annotations", "txt")


def label_folder(folder: str) -> str:
    """Returns the folder of the labels, or that of the images if there is no other.

    YOLO replaces the last 'images' of the path by 'labels'. Without this folder, labels beside the
    images are taken. Otherwise, labels may be in a folder of another name (imgs/ and txt/), in one
    that an archive was extracted to (images/images/train), in one for all splits, or in
    labels/train/ beside train/, if some of them have the names of the images.
    """
    parts, found = Path(folder).parts, [folder]
    for place in reversed(range(len(parts))):
        if _IMAGES.search(parts[place]):
            candidates = _candidates(Path(*parts[:place]), parts[place], parts[place + 1 :])
            usual = next(candidates)
            if parts[place].lower() == IMAGE_FOLDERS[0] and usual and os.path.isdir(usual):
                return usual
            found += [usual, *candidates]
    labels = subfolder(Path(folder).parent, *_LABELS)
    found += [os.path.join(labels, parts[-1])] if labels else []
    images = list_folder(folder).images()
    names = {*images, *map(stem_of, images)}  # a.jpg.txt, a.txt
    return next((path for path in filter(None, found) if names & stems_of_texts(path)), folder)


def stems_of_texts(folder: str) -> set[str]:
    """Returns the names of the text files in a folder, without suffix."""
    return set(map(stem_of, list_folder(folder).with_suffix(".txt")))


def _candidates(parent: Path, name: str, rest: tuple[str, ...]) -> Iterator[str]:
    """Folders that may be there, the first being YOLO's; that is '' without labels/."""
    plain = tuple(part for part in rest if part.lower() not in IMAGE_FOLDERS)
    for label in _LABELS:
        outer = subfolder(parent, _IMAGES.sub(label, name))
        if label == _LABELS[0]:
            yield os.path.join(outer, *rest) if outer else ""
        inner = subfolder(outer, *_LABELS) if outer else None
        for labels in filter(None, (outer, inner)):
            yield from (os.path.join(labels, *below) for below in (rest, plain))
            is_split = len(plain) == 1 and is_split_name(plain[0])
            if is_split and _are_of_all_splits(parent / name, labels):
                yield os.fspath(labels)


def _are_of_all_splits(images: Path, labels: str | Path) -> bool:
    """Whether one folder can have the labels of all splits.

    No split has labels of its own there, and no two splits have an image of the same name, since
    one label file cannot be that of both. Images beside the splits are those of another one.
    """
    splits = list(filter(is_split_name, list_folder(images).folders))
    if any(os.path.isdir(os.path.join(labels, split)) for split in splits):
        return False
    stems = [
        {stem_of(name) for listing in walk(images / split) for name in listing.images()}
        for split in splits
    ]
    stems.append(set(map(stem_of, list_folder(images).images())))
    return sum(map(len, stems)) == len(set().union(*stems))


def split_folders(root: Path) -> dict[str, Path]:
    """Returns the folders of splits in a folder, by their splits: train/, also train_images/."""
    names = list_folder(root).folders
    plain = {_IMAGES.sub("", name).strip("-_ "): root / name for name in names}
    whole = {name: root / name for name in names}
    return {split: folder for split, folder in (plain | whole).items() if is_split_name(split)}
