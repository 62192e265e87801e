"""Which folder has the labels of a folder of images, in a YOLO dataset."""

import itertools
import os
import re
from pathlib import Path

from retinanet_jax.data.annotations.folder_files import list_folder, stem_of, subfolder
from retinanet_jax.data.annotations.split_names import is_split_name

IMAGE_FOLDERS = ("images", "imgs", "img", "image")
# As a word of a name: images, train_images; VOC's JPEGImages, too, as Darknet has it.
_IMAGES = re.compile(r"(?<![a-z])(jpeg)?(images?|imgs?)(?![a-z])", re.IGNORECASE)
_LABELS = ("labels", "label", "annotations", "txt")


def label_folder(folder: str) -> str:
    """The folder of the labels; that of the images itself if there is no other.

    The last 'images' of its path replaced by 'labels', as YOLO has it. Each may be in a folder of
    its own name, as archives are extracted (images/images/train). Labels may also be in a folder of
    another name, in one for all splits, or those of train/ in labels/train/, if some have the names
    of the images.
    """
    parts, found = Path(folder).parts, []
    for place in reversed(range(len(parts))):
        if _IMAGES.search(parts[place]):
            parent, rest = Path(*parts[:place]), parts[place + 1 :]
            found += _candidates(parent, parts[place], rest)
            if any(is_usual for _, is_usual in found):
                break
    labels = subfolder(Path(folder).parent, *_LABELS)
    if labels and not found and os.path.isdir(labels / parts[-1]):
        found.append((str(labels / parts[-1]), False))
    images = list_folder(folder).images()
    names = {*images, *map(stem_of, images)}  # a.jpg.txt, a.txt
    named = (path for path, _ in found if names & _stems_of_texts(path))
    usual = (path for path, is_usual in found if is_usual)
    return next(itertools.chain(named, usual), folder)


def _stems_of_texts(folder: str) -> set[str]:
    return set(map(stem_of, list_folder(folder).with_suffix(".txt")))


def _candidates(parent: Path, name: str, rest: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Folders that are there, and whether they have YOLO's usual name."""
    found = []
    plain = tuple(part for part in rest if part.lower() not in IMAGE_FOLDERS)
    of_all = plain[1:] if plain and is_split_name(plain[0]) else plain
    for label in _LABELS:
        outer = subfolder(parent, _IMAGES.sub(label, name))
        inner = subfolder(outer, *_LABELS) if outer else None
        for labels, below in itertools.product(filter(None, (outer, inner)), (rest, plain, of_all)):
            if os.path.isdir(path := labels.joinpath(*below)):
                found.append((str(path), label == _LABELS[0] and below == rest))
    return found


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of splits in a folder, by their splits: train/, also train_images/."""
    names = list_folder(root).folders
    plain = {_IMAGES.sub("", name).strip("-_ "): root / name for name in names}
    whole = {name: root / name for name in names}
    return {split: folder for split, folder in (plain | whole).items() if is_split_name(split)}
