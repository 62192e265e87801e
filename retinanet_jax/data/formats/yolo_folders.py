"""Where the images, labels and class names of a YOLO dataset are.

Recognised: a YAML file as Ultralytics reads it (data.yaml); Darknet's obj.data; images/ beside
labels/, with splits in them or above them; labels beside the images.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats.annotation_fields import short
from retinanet_jax.data.formats.class_lists import (
    CLASS_FILES,
    checked_class_names,
    find_class_names,
    read_class_names,
)
from retinanet_jax.data.formats.folder_files import (
    IMAGE_SUFFIXES,
    ascii_head,
    is_split_name,
    list_folder,
    read_text,
    stem_of,
    subfolder,
    suffix_of,
    walk,
)
from retinanet_jax.data.formats.yaml_text import load_yaml

# The last is that of Roboflow's Darknet export.
YOLO_CLASS_FILES = (*CLASS_FILES, "obj.names", "_darknet.labels")
_ANY_SPLIT = ("images", "imgs", "img", "jpegimages")
_YAML_BYTES = 1 << 22
_YAML_SPLITS = ("train", "val", "valid", "validation", "test")
_LABEL_LINE = re.compile(r"\d+(\.0*)?(\s+[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?){4}(\s|$)")


class YoloDataset(NamedTuple):
    """A YOLO dataset.

    tool: who writes or reads this form.
    splits: by name, the folders of images and the text files that list images.
    class_names: by their number; None where no file names them.
    keypoints: whether label lines have keypoints behind the box.
    notes: (reason, where) pairs.
    """

    root: Path
    tool: str
    splits: dict[str, tuple[Path, ...]]
    class_names: dict[int, str] | None
    keypoints: bool = False
    notes: tuple[tuple[str, str], ...] = ()


def find_dataset(root: Path) -> YoloDataset | None:
    """The dataset of a folder or of a YAML file; None where there is none.

    Raises:
      DataError: there is one, but its description is broken or ambiguous.
    """
    described = _yaml_file(root)
    if described is not None and _has_splits(described[1]):
        return _from_yaml(*described)
    if not root.is_dir():
        return None
    dataset = _from_darknet(root) or _from_folders(root)
    if dataset is not None and described is not None:  # with class names alone
        path, content = described
        return dataset._replace(
            class_names=_yaml_names(content, path), keypoints="kpt_shape" in content
        )
    return dataset


def _yaml_file(root: Path) -> tuple[Path, dict] | None:
    """The YAML file that describes a dataset, with its content."""
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
    found = [pair for pair in found if _has_splits(pair[1])] or found
    if len(found) > 1:
        what = f"has several: {', '.join(path.name for path, _ in found)}"
        fix = "set data.root to one of these files"
        raise DataError("dataset YAML", root, "", what, fix)
    return found[0] if found else None


def _has_splits(content: dict) -> bool:
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


def _from_yaml(path: Path, content: dict) -> YoloDataset:
    names = _yaml_names(content, path)
    splits, notes = {}, []
    for split in _YAML_SPLITS:
        entries = content.get(split)
        entries = entries if isinstance(entries, list) else [entries]
        entries = [entry for entry in entries if entry not in (None, "", "null", "~")]
        places = [_locate(entry, content.get("path"), path, split) for entry in entries]
        if None not in places:
            splits |= {split: dict(zip(places, entries, strict=True))} if entries else {}
            continue
        missing = short(entries[places.index(None)])
        if split == "train":
            fix = f"write the folder of its images, relative to {path.parent}"
            raise DataError("missing folder", path, split, f"{missing} does not exist", fix)
        notes.append(("split without its folder, left out", f"{path}: {split}: {missing}"))
    if not splits:
        fix = f"write the folder of its images as 'train', relative to {path.parent}"
        raise DataError("missing folder", path, "", "names no folder that exists", fix)
    _check_places(splits, path)
    tool = "YOLO as exported by Roboflow" if "roboflow" in content else "YOLO with a YAML file"
    folders = {split: tuple(places) for split, places in splits.items()}
    return YoloDataset(path.parent, tool, folders, names, "kpt_shape" in content, tuple(notes))


def _check_places(splits: dict[str, dict[Path, str]], path: Path) -> None:
    """Raises DataError where different paths of a YAML file were taken for one folder."""
    first: dict[Path, str] = {}
    for split, places in splits.items():
        for place, entry in places.items():
            other = first.setdefault(place, entry)
            if _end(other) != _end(entry):
                what = f"{short(entry)} and {short(other)} both lead to {place}"
                raise DataError("ambiguous folder", path, split, what, "correct these paths")


def _end(entry: str) -> list[str]:
    """The last two parts of a path, without . and .., to compare what paths mean."""
    return [part for part in re.split(r"[/\\]", entry) if part not in ("", ".", "..")][-2:]


def _yaml_names(content: dict, path: Path) -> dict[int, str]:
    """`names` by number: a list, or a dict from numbers; without it, class_0 to class_(nc - 1)."""
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
        raise DataError("class names", path, "", what, "make them agree")
    return by_number


def _locate(entry, base, path: Path, split: str) -> Path | None:
    """A folder or list of images that a YAML file names; None where nothing fits.

    Relative to `path` of the file, or to the file itself: Roboflow's begin with a wrong '../'.
    """
    if not isinstance(entry, str) or "\0" in entry:
        what, fix = f"is {short(entry)}", "write a folder, a text file or a list of these"
        raise DataError("dataset YAML", path, split, what, fix)
    bases = [path.parent]
    if isinstance(base, str) and base.strip() and "\0" not in base:
        bases.insert(0, path.parent / os.path.expanduser(base.replace("\\", "/")))
    return locate(os.path.expanduser(entry), bases)


def locate(stated: str, bases: list[Path]) -> Path | None:
    """The file or folder below one of `bases` that a stated path means; None if there is none.

    In this order: the path as it is; without leading '../'; its end, for a path that was written on
    another machine.
    """
    stated = stated.strip().replace("\\", "/")
    parts = [part for part in stated.split("/") if part not in ("", ".", "..")]
    candidates = [base / stated for base in bases]
    for start in range(1 if stated.startswith("../") else len(parts)):
        # An end such as 'images' alone could be that of another split.
        if start and len(parts) - start == 1 and parts[-1].lower() in _ANY_SPLIT:
            bases = [base for base in bases if base.name == parts[start - 1]]
        candidates += [base.joinpath(*parts[start:]) for base in bases]
    for candidate in candidates:
        try:
            if candidate.exists():
                return Path(os.path.normpath(candidate))
        except OSError:  # a name that is too long
            continue
    return None


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
    """Whether the first line of a file is the name of an image."""
    line = _text_head(path).lstrip().split("\n")[0]
    return suffix_of(line.strip()) in IMAGE_SUFFIXES


def _text_head(path: Path) -> str:
    head = ascii_head(path, 4096)
    return head.decode("utf-8", "ignore").lstrip("\ufeff")


def _key_values(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, mark, value in lines if mark}


def _from_folders(root: Path) -> YoloDataset | None:
    """images/ and labels/ in any order with splits, or labels beside the images."""
    images, labels = subfolder(root, "images"), subfolder(root, "labels")
    named = [root / name for name in list_folder(root).folders if is_split_name(name)]
    if images and labels:
        inner = [images / name for name in list_folder(images).folders if is_split_name(name)]
        splits = {folder.name: (folder,) for folder in inner} or {"train": (images,)}
        places = [labels]
    else:
        pairs = {f: (subfolder(f, "images") or f, subfolder(f, "labels") or f) for f in named}
        pairs = pairs or {root: (root, root)}
        splits = {f.name if f != root else "train": (i,) for f, (i, _) in pairs.items()}
        places = [labels for _, labels in pairs.values()]
    beside = {folder for paths in splits.values() for folder in paths}
    if not any(_has_labels(place, place in beside) for place in places):
        return None
    folders = [root, *places, *(folder for paths in splits.values() for folder in paths), *named]
    names = find_class_names(folders, YOLO_CLASS_FILES)
    class_names = None if names is None else dict(enumerate(names))
    return YoloDataset(root, "YOLO in folders", splits, class_names)


def _has_labels(folder: Path, beside: bool) -> bool:
    """Whether a folder has label files: numbers, not the words of KITTI's or of another text.

    `beside`: next to the images of their names.
    """
    looked_at = 0
    for listing in walk(folder):
        images = {stem_of(name) for name in listing.images()}
        for name in listing.with_suffix(".txt"):
            if name.lower() in YOLO_CLASS_FILES or (beside and stem_of(name) not in images):
                continue
            head = _text_head(Path(listing.path) / name).strip()
            looked_at += 1
            if head:
                return _LABEL_LINE.match(head.splitlines()[0]) is not None
            if looked_at >= 1000:
                return True
    return looked_at > 0
