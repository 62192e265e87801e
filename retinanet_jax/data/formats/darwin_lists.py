"""The splits of a dataset of darwin-py: lists of annotation files in lists/NAME/."""

from collections.abc import Sequence
from pathlib import Path

from retinanet_jax.data.annotations.annotation_fields import short
from retinanet_jax.data.annotations.folder_files import list_folder, read_text, stem_of, suffix_of
from retinanet_jax.data.data_errors import DataError, Guard

UNLISTED = "annotation files that are in no list, left out"
_STRATEGIES = ("random", "stratified_bounding_box", "stratified_polygon", "stratified_tag")


def split_lists(release: Path) -> dict[str, Path]:
    """Returns the lists of the splits of a release; {} where it is not divided.

    Raises:
      DataError: there are several divisions, and none is named default.
    """
    folders = {name: release / "lists" / name for name in list_folder(release / "lists").folders}
    found = {name: lists for name, path in folders.items() if (lists := _lists_in(path))}
    chosen = [found["default"]] if "default" in found else list(found.values())
    if len(chosen) > 1:
        what = f"has lists of splits in {', '.join(found)}"
        fix = "link lists/default to one of them, or delete the others"
        raise DataError("several divisions", release / "lists", "", what, fix)
    return chosen[0] if chosen else {}


def _lists_in(folder: Path) -> dict[str, Path]:
    """The lists of the first strategy that was used: random_train.txt is 'train'."""
    names = list_folder(folder).with_suffix(".txt")
    for strategy in _STRATEGIES:
        found = {
            stem_of(name).removeprefix(f"{strategy}_"): folder / name
            for name in names
            if name.startswith(f"{strategy}_")
        }
        if found:
            return {name: found[name] for name in sorted(found, key=_order)}
    return {}


def _order(name: str) -> tuple[bool, str]:
    return name != "train", name


def listed_files(image_set: Path, files: dict[str, str], guard: Guard) -> dict[str, str]:
    """Returns the annotation files of a list; the guard collects lines without a file."""
    listed = {}
    for number, line in enumerate(read_text(image_set).splitlines(), 1):
        if not line.strip():
            continue
        with guard:
            stem = _stem(line)
            if stem not in files:
                what = f"there is no annotation file {short(stem)}"
                fix = "pull the release again, or delete the line"
                raise DataError("missing annotation", image_set, f"line {number}", what, fix)
            listed[stem] = files[stem]
    return listed


def unlisted(image_sets: Sequence[Path], files: dict[str, str]) -> list[str]:
    """Returns the annotation files that no list has."""
    lines = [line for path in image_sets for line in read_text(path).splitlines()]
    listed = {_stem(line) for line in lines if line.strip()}
    return [path for stem, path in files.items() if stem not in listed]


def _stem(line: str) -> str:
    """The name below annotations/; a list has the paths of the machine that wrote it."""
    path = line.strip().replace("\\", "/")
    _, found, below = path.rpartition("/annotations/")
    name = below if found else path.rpartition("/")[2]
    return stem_of(name) if suffix_of(name) == ".json" else name
