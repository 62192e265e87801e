"""Names of splits, which differ between tools (val, valid, validation)."""

import functools
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# Names of the same thing, in the order of preference.
_VALIDATION = ("validation", "val", "valid", "validate", "dev", "eval")
_TEST = ("test", "testing", "test-dev")
_BOTH = "trainval"  # of Pascal VOC: its images are those of two splits
_GROUPS = {"train": ("train", "training", _BOTH), "val": _VALIDATION, "test": _TEST}
_NAMES = "|".join(itertools.chain(*_GROUPS.values()))
_SPLIT = re.compile(rf"({_NAMES})([-_ ]?\d+)?", re.IGNORECASE)
AUTO = "auto"


class SplitNames(NamedTuple):
    """The names of a folder's splits on disk; None for a split that does not exist."""

    train: str | None
    evaluation: str | None


def is_split_name(name: str) -> bool:
    """Returns whether a folder or file name means a split: 'train', 'valid', 'val2017', ..."""
    return _SPLIT.fullmatch(name) is not None


def is_training(name: str) -> bool:
    """Returns whether a name means a split to train on: 'train', 'training', 'trainval', ..."""
    match = _SPLIT.fullmatch(name)
    return match is not None and match[1].lower() in _GROUPS["train"]


def is_validation(name: str) -> bool:
    """Returns whether `data.eval_split` with this name means any validation split."""
    return name.lower() in (AUTO, *_VALIDATION)


def same_split_names(name: str) -> tuple[str, ...]:
    """Returns the names of the same split, including this one; none for other names.

    For example, 'val' and 'valid' are names of the same split.
    """
    return next((group for group in _GROUPS.values() if name.lower() in group), ())


@functools.cache
def split_kind(name: str) -> str:
    """Returns 'train', 'val' or 'test' for the name of a split, such as 'valid2017'; else ''.

    Also '' for 'trainval': an image in a folder of this name may be of either split.
    """
    match = _SPLIT.fullmatch(name)
    plain = match[1].lower() if match else _BOTH
    if plain == _BOTH:
        return ""
    return next(kind for kind, names in _GROUPS.items() if plain in names)


def find_split(wanted: str, available: Sequence[str]) -> str | None:
    """Returns the available split with a name: itself, or one with the same meaning.

    'val' also matches val2017 or val_1, if that is the only one.
    """
    if wanted in available:
        return wanted
    for name in same_split_names(wanted) or (wanted,):
        same = [split for split in available if split.lower() == name]
        numbered = [s for s in available if re.fullmatch(rf"{re.escape(name)}[_-]?\d+", s.lower())]
        for found in (same, numbered):
            if len(found) == 1:
                return found[0]
    return None


def resolve_splits(train: str, evaluation: str, available: Sequence[str]) -> SplitNames:
    """Returns the splits that `data.train_split` and `data.eval_split` mean, without slices.

    A folder with a single split trains on it, unless it is the evaluation split. 'auto', 'val' and
    its synonyms mean a validation split, or else a test split; other names mean only that split.
    """
    if evaluation in available:
        return SplitNames(find_split(train, available), evaluation)
    if len(available) == 1:
        return SplitNames(available[0], available[0] if evaluation == train else None)
    found = find_split(train, available)
    if evaluation == train:
        return SplitNames(found, found)
    others = [split for split in available if split != found]
    names = (_VALIDATION[0], _TEST[0]) if is_validation(evaluation) else (evaluation,)
    return SplitNames(found, next(filter(None, (find_split(n, others) for n in names)), None))


def split_in_name(name: str) -> str | None:
    """Returns the one split that is a word of a name: 'train' for 'train_labels'."""
    named = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if is_split_name(word)]
    return named[0] if len(named) == 1 else None


def split_of_file(path: Path, root: Path) -> str | None:
    """Returns the split in the name of a file or its folder: 'train' for train_labels.csv."""
    # Rekognition's training_manifest_with_validation.json is about the validation of the file.
    stem = path.stem.lower().removesuffix("_with_validation")
    if named := split_in_name(stem):
        return named
    folder = path.parent
    return folder.name if folder != root and is_split_name(folder.name) else None


def without_split(name: str) -> str | None:
    """Returns a file name with * for the split: '*.json' for 'train.json'. None without a split."""
    words = re.split(r"([^A-Za-z0-9]+)", name)
    if sum(map(is_split_name, words)) != 1:
        return None
    return "".join("*" if is_split_name(word) else word for word in words)
