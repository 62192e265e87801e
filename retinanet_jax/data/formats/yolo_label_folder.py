"""Which folder has the labels of a folder of images, in a YOLO dataset."""

import itertools
import os
import re
from pathlib import Path

from retinanet_jax.data.annotations.folder_files import list_folder, subfolder
from retinanet_jax.data.annotations.split_names import is_split_name

IMAGE_FOLDERS = ("images", "imgs", "img", "image", "JPEGImages")
# As a word of a name: images, train_images.
_IMAGES = re.compile(r"(?<![a-z])(jpeg)?(images?|imgs?)(?![a-z])", re.IGNORECASE)
_LABELS = ("labels", "label", "annotations", "txt")


def label_folder(folder: str) -> str:
    """The folder of the labels; that of the images itself if there is no other.

    The last 'images' of its path replaced by 'labels', as YOLO has it. Each may be in a folder of
    its own name, as archives are extracted (images/images/train), and labels in a folder of another
    name if it has text files.
    """
    parts, found = Path(folder).parts, []
    for place in reversed(range(len(parts))):
        if _IMAGES.search(parts[place]):
            parent, rest = Path(*parts[:place]), parts[place + 1 :]
            found += _candidates(parent, parts[place], rest)
            if any(is_usual for _, is_usual in found):
                break
    with_labels = [path for path, _ in found if list_folder(path).with_suffix(".txt")]
    usual = [path for path, is_usual in found if is_usual]
    return next(iter((*with_labels, *usual)), folder)


def _candidates(parent: Path, name: str, rest: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Folders that are there, and whether they have YOLO's usual name."""
    found = []
    plain = tuple(part for part in rest if part.lower() not in map(str.lower, IMAGE_FOLDERS))
    for label in _LABELS:
        outer = subfolder(parent, _IMAGES.sub(label, name))
        inner = subfolder(outer, *_LABELS) if outer else None
        for labels, below in itertools.product((outer, inner), dict.fromkeys((rest, plain))):
            if labels and os.path.isdir(path := labels.joinpath(*below)):
                found.append((str(path), label == _LABELS[0] and below == rest))
    return found


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of splits in a folder, by their splits: train/, also train_images/."""
    names = list_folder(root).folders
    plain = {_IMAGES.sub("", name).strip("-_ "): root / name for name in names}
    whole = {name: root / name for name in names}
    return {split: folder for split, folder in (plain | whole).items() if is_split_name(split)}
