"""Reads data.yaml, the YAML file of a YOLO dataset, as Ultralytics does."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations.annotation_fields import short
from retinanet_jax.data.annotations.class_lists import checked_class_names
from retinanet_jax.data.annotations.file_names import name_archives
from retinanet_jax.data.annotations.folder_files import (
    has_images,
    list_folder,
    read_text,
    stem_of,
    walk,
)
from retinanet_jax.data.annotations.split_names import is_split_name, same_split_names
from retinanet_jax.data.annotations.yaml_text import load_yaml
from retinanet_jax.data.data_errors import DataError

_ANY_SPLIT = ("images", "imgs", "img", "jpegimages")
MISSING = "folder of a split that does not exist or has no images, left out"
RENAMED = "folder of another name for the same split, used"
_YAML_BYTES = 1 << 22
_YAML_SPLITS = ("train", "val", "valid", "validation", "test")


class YoloDataset(NamedTuple):
    """A YOLO dataset.

    tool: the tool that writes or reads this form.
    splits: folders of images and text files that list images, by split.
    class_names: by their number; None where no file names them.
    keypoints: whether label lines have keypoints behind the box.
    notes: (reason, where) pairs.
    apart: folders in that of a split that are those of other splits.
    """

    root: Path
    tool: str
    splits: dict[str, tuple[Path, ...]]
    class_names: dict[int, str] | None
    keypoints: bool = False
    notes: tuple[tuple[str, str], ...] = ()
    apart: tuple[str, ...] = ()


def yaml_file(root: Path) -> tuple[Path, dict] | None:
    """Returns the YAML file that describes a dataset, with its content; None if there is none.

    Raises:
      DataError: there are several, or the file is not YAML.
    """
    if root.is_file():
        names = [root.name]
    else:
        names = list_folder(root).with_suffix(".yaml", ".yml")
        names.sort(key=lambda name: stem_of(name).lower() not in ("data", "dataset"))
    folder, found = root if root.is_dir() else root.parent, []
    for name in names:
        if name.lower().endswith((".yaml", ".yml")) and (content := _load_yaml(folder / name)):
            found.append((folder / name, content))
            if stem_of(name).lower() in ("data", "dataset"):
                break
    found = [pair for pair in found if has_splits(pair[1])] or found
    if len(found) > 1:
        what = f"has several YAML files: {', '.join(path.name for path, _ in found)}"
        fix = "set data.root to one of these files"
        raise DataError("dataset YAML", root, "", what, fix)
    return found[0] if found else None


def has_splits(content: dict) -> bool:
    """Returns whether a YAML file names the folder of any split."""
    return any(split in content for split in _YAML_SPLITS)


def _load_yaml(path: Path) -> dict | None:
    """The content of a YAML file that has class names; None for any other."""
    if path.stat().st_size > _YAML_BYTES:
        return None
    text = read_text(path)
    if not re.search(r"^\s*[\"']?(names|nc)[\"']?\s*:", text, re.M):
        return None
    try:
        content = load_yaml(text)
    except ValueError as error:
        what = f"is not YAML ({error})"
        raise DataError("dataset YAML", path, "", what, "fix its syntax") from error
    is_dataset = isinstance(content, dict) and ("names" in content or "nc" in content)
    return content if is_dataset else None


def from_yaml(path: Path, content: dict) -> YoloDataset:
    """Returns the dataset that a YAML file with splits describes.

    Raises:
      DataError: its class names or folders are missing or ambiguous.
    """
    names = yaml_names(content, path)
    splits, notes = {}, []
    bases = _bases(content.get("path"), _entries(content.get("train")), path.parent)
    for split in _YAML_SPLITS:
        places = _places(_entries(content.get(split)), bases, path, split, notes)
        splits |= {split: places} if places else {}
    if not splits:
        fix = f"write the folder of its images as 'train', relative to {path.parent}"
        what = "names no existing folder with an image"
        raise DataError("missing folder", path, "", what, fix)
    _check_places(splits, path)
    tool = "YOLO as exported by Roboflow" if "roboflow" in content else "YOLO with a YAML file"
    folders = {split: tuple(places) for split, places in splits.items()}
    return YoloDataset(path.parent, tool, folders, names, "kpt_shape" in content, tuple(notes))


def _entries(stated) -> list:
    stated = stated if isinstance(stated, list) else [stated]
    return [entry for entry in stated if entry not in (None, "", "null", "~")]


def _bases(stated, entries: list, folder: Path) -> list[Path]:
    """What the entries of a YAML file in a folder may be relative to.

    Its `path`, also if that is of another machine, and the folder. If no entry is there, also the
    one folder below in which it is: an archive may have been extracted into a folder of its own.
    """
    bases = [folder]
    if isinstance(stated, str) and stated.strip() and "\0" not in stated:
        plain = os.path.expanduser(stated.strip().replace("\\", "/"))
        ends = [folder.joinpath(*_parts(plain)[n:]) for n in range(len(_parts(plain)))]
        bases = [folder / plain, folder, *filter(os.path.isdir, ends)]
    texts = [entry for entry in entries if isinstance(entry, str) and "\0" not in entry]
    if any(locate(os.path.expanduser(entry), bases) for entry in texts):
        return bases
    below = [Path(listing.path) for listing in walk(folder)] if texts else []
    for parts in map(_parts, texts):
        found = [base for base in below if os.path.exists(base.joinpath(*parts))]
        if len(found) == 1:
            return [*bases, *found]
    return bases


def _places(
    entries: list, bases: list[Path], path: Path, split: str, notes: list[tuple[str, str]]
) -> dict[Path, str]:
    """The folders and lists of a split that have an image, with their entries in the YAML file.

    Raises:
      DataError: the training split lacks one; of another split, `notes` names it.
    """
    places: dict[Path, str] = {}
    for entry in entries:
        place = _locate(entry, bases, path, split)
        if place is None and (renamed := _renamed(entry, bases, path, split)):
            notes.append((RENAMED, f"{path}: {split}: {short(entry)}"))
            entry, place = renamed
        if place is not None and _has_images(place):
            places[place] = entry
        elif split == "train":
            what = "does not exist" if place is None else f"is {place}, which has no image"
            fix = f"write the folder of its images, relative to {path.parent}"
            fix += name_archives(path.parent)
            raise DataError("missing folder", path, split, f"{short(entry)} {what}", fix)
        else:
            notes.append((MISSING, f"{path}: {split}: {short(entry)}"))
    return places


def _has_images(place: Path) -> bool:
    """Whether a folder has an image, or a list a line."""
    if place.is_dir():
        return has_images(place)
    return bool(read_text(place).strip())


def _check_places(splits: dict[str, dict[Path, str]], path: Path) -> None:
    """Raises DataError where different paths of a YAML file were taken for one folder."""
    first: dict[Path, str] = {}
    for split, places in splits.items():
        for place, entry in places.items():
            other = first.setdefault(place, entry)
            if _end(other) != _end(entry):
                what = f"{short(entry)} and {short(other)} both lead to {place}"
                raise DataError("ambiguous folder", path, split, what, "fix these paths")


def _end(entry: str) -> list[str]:
    """The last two parts of a path, to compare what paths mean."""
    return _parts(entry)[-2:]


def _parts(entry: str) -> list[str]:
    """The parts of a path, without . and .."""
    return [part for part in re.split(r"[/\\]", entry.strip()) if part not in ("", ".", "..")]


def yaml_names(content: dict, path: Path) -> dict[int, str]:
    """Returns `names` by number, from a list or a dict.

    Without `names`, they are class_0 to class_(nc - 1).

    Raises:
      DataError: they are broken; `path` names the file.
    """
    names, count = content.get("names"), content.get("nc")
    if count is not None and not (isinstance(count, str) and re.fullmatch(r"\d{1,5}", count)):
        raise DataError("nc", path, "", f"nc is {short(count)}", "write the number of classes")
    if names is None and count is not None:
        return {number: f"class_{number}" for number in range(int(count))}
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        fix = "write a list of class names, or a dict from numbers to names"
        raise DataError("class names", path, "names", f"is {short(names)}", fix)
    if bad := [key for key in names if not re.fullmatch(r"\d{1,6}", str(key))]:
        what = f"has the key {short(bad[0])}"
        raise DataError("class names", path, "names", what, "number the classes from 0")
    by_number = {int(key): name.strip() for key, name in names.items()}
    by_number = dict(sorted(by_number.items()))
    checked_class_names(list(by_number.values()), path)
    if count is not None and int(count) != len(by_number):
        what = f"nc is {count}, but names has {len(by_number)} classes"
        raise DataError("class names", path, "", what, "make these numbers equal")
    return by_number


def _locate(entry, bases: list[Path], path: Path, split: str) -> Path | None:
    """A folder or list of images that a YAML file names; None where nothing fits."""
    if not isinstance(entry, str) or "\0" in entry:
        what, fix = f"is {short(entry)}", "write a folder, a text file or a list of these"
        raise DataError("dataset YAML", path, split, what, fix)
    return locate(os.path.expanduser(entry), bases)


def _renamed(entry: str, bases: list[Path], path: Path, split: str) -> tuple[str, Path] | None:
    """Entry and folder, if it exists under another name of the split: val/ for valid/."""
    pattern = rf"(?<![^/\\])({'|'.join(same_split_names(split))})(?![^/\\])"
    for name in same_split_names(split):
        changed = re.sub(pattern, name, entry, flags=re.IGNORECASE)
        if (place := _locate(changed, bases, path, split)) is not None:
            return changed, place
    return None


def locate(stated: str, bases: list[Path]) -> Path | None:
    """Returns the file or folder that a stated path means below one of `bases`, or None.

    These are tried in order: the path as it is, the path without leading '../', and its end, for a
    path from another machine or from before the dataset's folder was renamed.
    """
    stated, parts = stated.strip().replace("\\", "/"), _parts(stated)
    candidates = [base / stated for base in bases]
    for start in range(len(parts)):
        # An end such as 'images' alone could be that of another split.
        if start and parts[start:] == parts[-1:] and parts[-1].lower() in _ANY_SPLIT:
            outer = parts[start - 1]
            bases = [base for base in bases if base.name == outer or not is_split_name(outer)]
        candidates += [base.joinpath(*parts[start:]) for base in bases]
    for candidate in candidates:
        try:
            if candidate.exists():
                return Path(os.path.normpath(candidate))
        except OSError:  # a name that is too long
            continue
    return None
