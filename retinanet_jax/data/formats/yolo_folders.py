"""Finds the images, labels and class names of a YOLO dataset.

Recognised: a YAML file as Ultralytics reads it (data.yaml); Darknet's obj.data; images/ beside
labels/, with splits in them or above them; labels beside the images.
"""

import re
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations.class_lists import find_class_names, read_class_names
from retinanet_jax.data.annotations.folder_files import (
    ascii_head,
    list_folder,
    read_text,
    stem_of,
    suffix_of,
    walk,
)
from retinanet_jax.data.annotations.split_names import is_split_name
from retinanet_jax.data.formats.image_list_lines import has_boxes
from retinanet_jax.data.formats.yolo_label_folder import label_folder, split_folders
from retinanet_jax.data.formats.yolo_splits import YOLO_CLASS_FILES, find_places
from retinanet_jax.data.formats.yolo_yaml import (
    YoloDataset,
    from_yaml,
    has_splits,
    locate,
    yaml_file,
    yaml_names,
)
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

LOOSE = "image in the folder of no split, left out"
# DOTA's lines begin with eight numbers and a word.
_NOT_DOTA = r"(?!(\S+\s+){8}[^\W\d])"
_LABEL_LINE = re.compile(
    _NOT_DOTA + r"\d+(\.0*)?(\s+[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?){4}(\s|$)"
)
# Of a folder that the user calls YOLO; KITTI's lines have more words.
_ANY_LINE = re.compile(_NOT_DOTA + r"(\d|\S+(\s+\S+){4}\s*$)")
# A folder is judged by so many label files with text, and without.
_LOOKED_AT, _MAX_EMPTY = 20, 1000


def find_dataset(root: Path, *, named: bool = False) -> YoloDataset | None:
    """Returns the dataset of a folder or of a YAML file; None if there is none.

    Args:
      named: whether the user named the layout; label files with broken lines then count, too.

    Raises:
      DataError: the description of the dataset is broken or ambiguous.
    """
    described = yaml_file(root)
    if described is not None and has_splits(described[1]):
        return from_yaml(*described)
    if not root.is_dir():
        return None
    dataset = _from_darknet(root) or _from_folders(root, _ANY_LINE if named else _LABEL_LINE)
    if dataset is not None and described is not None:  # with class names alone
        path, content = described
        return dataset._replace(
            class_names=yaml_names(content, path), keypoints="kpt_shape" in content
        )
    return dataset


def _from_darknet(root: Path) -> YoloDataset | None:
    """Darknet's form, which CVAT exports: obj.data, or lists of images beside the class names."""
    files = list_folder(root).files
    data = next((name for name in files if name.endswith(".data")), None)
    lists = {stem_of(name).lower(): name for name in files if is_split_name(stem_of(name))}
    lists = {split: root / name for split, name in lists.items() if name.endswith(".txt")}
    names = next((root / n for n in files if n.endswith(".names") or n == "classes.txt"), None)
    if data is not None:
        entries = _key_values(read_text(root / data))
        names = locate(entries.pop("names", ""), [root]) or names
        for split in entries.keys() - {"classes", "backup", "eval"}:
            place = locate(entries[split], [root])
            if place is not None and place.is_file():
                lists[split] = place
    if names is None or not names.is_file():
        return None
    lists = {split: path for split, path in lists.items() if _lists_images(path)}
    if not lists:
        return None
    class_names = dict(enumerate(read_class_names(names)))
    tool = "YOLO for Darknet (obj.data)" if data else "YOLO with lists of images"
    return YoloDataset(root, tool, {s: (lists[s],) for s in sorted(lists)}, class_names)


def _lists_images(path: Path) -> bool:
    """Whether the first line of a file is the name of an image, and none has boxes behind it."""
    line = _text_head(path).lstrip().split("\n")[0]
    return suffix_of(line.strip()) in IMAGE_SUFFIXES and not has_boxes(path)


def _text_head(path: Path) -> str:
    head = ascii_head(path, 4096)
    return head.decode("utf-8", "ignore").lstrip("\ufeff")


def _key_values(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, mark, value in lines if mark}


def _from_folders(root: Path, line: re.Pattern[str]) -> YoloDataset | None:
    """images/ and labels/ in any order with splits, or labels beside the images."""
    found = find_places(root)
    if found is None:
        return None
    splits = found.splits.values()
    places = {label_folder(str(path)): path for path in splits}
    counts = [_count_files(Path(labels), labels == str(p), line) for labels, p in places.items()]
    labels, others, empty = (sum(counted) for counted in zip(*counts, strict=True))
    if not labels and (others or not empty):
        return None
    around = [path.parent for path in map(Path, places)]
    folders = [root, *map(Path, places), *around, *splits, *split_folders(root).values()]
    names = find_class_names([f for f in folders if f.is_relative_to(root)], YOLO_CLASS_FILES)
    class_names = None if names is None else dict(enumerate(names))
    notes = tuple((LOOSE, path) for path in found.loose)
    places_of = {split: (path,) for split, path in found.splits.items()}
    return YoloDataset(root, "YOLO in folders", places_of, class_names, False, notes, found.apart)


class _Files(NamedTuple):
    """How many of the first text files of a folder are labels, other texts, or without text."""

    labels: int = 0
    others: int = 0
    empty: int = 0


def _count_files(folder: Path, beside: bool, line: re.Pattern[str]) -> _Files:
    """Whether a folder has label files: numbers, not the words of KITTI's or of another text.

    One of the first files is enough: the errors of the others are then listed. Files without text
    are enough, too, where no folder has other texts.

    Args:
      beside: label files are next to the images of their names.
      line: of a label file, the first.
    """
    empty = others = 0
    for listing in walk(folder):
        images = {stem_of(name) for name in listing.images()}
        for name in listing.with_suffix(".txt"):
            if name.lower() in YOLO_CLASS_FILES or (beside and stem_of(name) not in images):
                continue
            head = _text_head(Path(listing.path) / name).strip()
            if head and line.match(head.splitlines()[0]):
                return _Files(labels=1)
            others, empty = others + bool(head), empty + (not head)
            if others >= _LOOKED_AT or empty >= _MAX_EMPTY:
                return _Files(0, others, empty)
    return _Files(0, others, empty)
