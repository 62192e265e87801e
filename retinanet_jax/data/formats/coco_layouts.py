"""Folders with annotations in COCO JSON, by the tools that write them."""

import collections
import functools
import re
from collections.abc import Sequence
from pathlib import Path

from retinanet_jax.data.annotations.folder_files import annotation_folders, list_folder, subfolder
from retinanet_jax.data.annotations.raw import Layout, RawSplit
from retinanet_jax.data.annotations.split_names import is_split_name, split_of_file
from retinanet_jax.data.data_errors import Guard
from retinanet_jax.data.formats.coco import read_coco
from retinanet_jax.data.formats.coco_parts import (
    are_parts,
    have_different_images,
    join_parts,
    plain_stem,
)

NAME = "coco"
_ROBOFLOW = "_annotations.coco.json"
# The first key of a COCO file; labelme, VIA projects and others begin with other keys. If it is a
# key of somebody's own, a list of images or an image's id has to follow.
_HEAD = re.compile(r'\s*\{\s*"(info|licenses?|images|annotations|categories|type|contributor)"\s*:')
_OWN_HEAD = re.compile(r'\s*\{.*?("images"\s*:\s*\[|"image_id"\s*:\s*["\d-])', re.DOTALL)
_HEAD_BYTES = 1 << 16
# A folder with more JSON files may have one for each image: only those of usual names are opened.
_MAX_FILES = 20
_USUAL = re.compile(r"annot|instances|coco|labels|train|val|test|result", re.IGNORECASE)
_SAMPLES = 20

Files = dict[str, list[Path]]  # by split: one, or several with different images


def find(root: Path) -> Layout | None:
    """Returns the layout of a folder, or of a JSON file, with annotations in COCO's format.

    Recognized are annotations/instances_SPLIT.json (also CVAT's instances_default.json), Roboflow's
    SPLIT/_annotations.coco.json, Label Studio's result.json beside images/, FiftyOne's labels.json
    beside data/, and JSON files in the folder itself, in annotations/ or another folder without
    images, or in a folder per split that begin as COCO's do (VIA, labelme2coco and others).
    """
    if root.is_file():
        if root.suffix.lower() != ".json" or not is_coco(root):
            return None
        parent = root.parent
        base = parent.parent if parent.name.lower() in ("annotations", "labels") else parent
        return _layout({_split_of(root, base): [root]}, base, f"COCO JSON, {root.name}")
    for files, tool in (
        (_instances(root), ""),
        (_roboflow(root), "as exported by Roboflow"),
        (_one(root / "result.json", root / "images"), "as exported by Label Studio"),
        (_one(root / "labels.json", root / "data"), "as exported by FiftyOne"),
        (_other_files(root), ""),
    ):
        if files:
            tool = "as exported by CVAT" if set(files) == {"default"} else tool
            return _layout(files, root, f"COCO JSON {tool}".strip())
    return None


def is_coco(path: Path) -> bool:
    """Returns whether a JSON file begins like COCO's format, and has images if it is short.

    Label Studio's notes.json has categories alone.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, errors="ignore")
    begins = _HEAD.match(text) or _OWN_HEAD.match(text)
    return begins is not None and (len(head) == _HEAD_BYTES or '"images"' in text)


def _by_split(files: Sequence[Path], root: Path) -> Files:
    """Files by the splits in their names; by their whole names if some are variants."""
    by_split = collections.defaultdict(list)
    for path in files:
        by_split[_split_of(path, root)].append(path)
    several = [paths for paths in by_split.values() if len(paths) > 1]
    # Not only in each split: of two folds, each trains on the images that the other evaluates on.
    if several and not (all(map(are_parts, several)) and have_different_images(files)):
        return {plain_stem(path): [path] for path in files}
    return dict(by_split)


def _split_of(path: Path, root: Path) -> str:
    """'train' of instances_train.json, train_annotations.json or of another file in train/."""
    plain = plain_stem(path)
    return plain if is_split_name(plain) else split_of_file(path, root) or plain


def _layout(files: Files, root: Path, tool: str) -> Layout:
    def read(split: str, guard: Guard) -> RawSplit:
        parts = []
        for path in files[split]:
            image_dir = functools.partial(choose_folder, _image_places(root, split, path))
            parts.append(read_coco(path, image_dir, guard, root=root, split=split))
        return join_parts(parts)

    return Layout(NAME, tool, tuple(files), read, (root,))


def _roboflow(root: Path) -> Files:
    if (root / _ROBOFLOW).is_file():
        return {"train": [root / _ROBOFLOW]}
    paths = [root / name / _ROBOFLOW for name in list_folder(root).folders]
    return {path.parent.name: [path] for path in paths if path.is_file()}


def _one(path: Path, folder: Path) -> Files:
    return {"all": [path]} if path.is_file() and folder.is_dir() and is_coco(path) else {}


def _instances(root: Path) -> Files:
    folder = subfolder(root, "annotations")
    names = [name for name in _json_names(folder) if name.startswith("instances_")]
    return _by_split([folder / name for name in names], root)


def _other_files(root: Path) -> Files:
    """COCO files by split, in the first of these places that has any."""
    for folder in (subfolder(root, "annotations"), root):
        if found := _coco_files(folder):
            return _by_split(found, root)
    folders = [root / name for name in list_folder(root).folders]
    inner = [subfolder(folder, "annotations") for folder in folders]
    for places in (folders, inner):
        found = {f.name: _coco_files(p) for f, p in zip(folders, places, strict=True)}
        found = {name: files for name, files in found.items() if files}
        single = all(len(files) == 1 for files in found.values())
        if len(found) == 1 and (single or root / next(iter(found)) in annotation_folders(root)):
            return _by_split(next(iter(found.values())), root)
        if found:
            split_folders = all(map(is_split_name, found)) and all(map(are_parts, found.values()))
            return found if single or split_folders else {}
    return {}


def _coco_files(folder: Path | None) -> list[Path]:
    names = _json_names(folder)
    if len(names) > _MAX_FILES:
        names = [name for name in names if _USUAL.search(name)]
    return [folder / name for name in names if len(names) <= _MAX_FILES and is_coco(folder / name)]


def _json_names(folder: Path | None) -> list[str]:
    return list_folder(folder).with_suffix(".json") if folder else []


def _image_places(root: Path, split: str, path: Path) -> list[Path]:
    """The folders that may hold a split's images, the most likely first."""
    images = subfolder(root, "images") or root / "images"
    places = [images / split, root / split / "images", root / split / "data", root / split]
    places += [images, root / "data", root / "JPEGImages"]
    usual = [place for place in places if place.is_dir()] or [images]
    return list(dict.fromkeys([*usual, path.parent, root]))


def choose_folder(places: Sequence[Path], names: Sequence[str]) -> Path:
    """Returns the folder with most of a sample of files, or else the first folder."""
    sample = [name.replace("\\", "/") for name in names[:: max(1, len(names) // _SAMPLES)]]
    return max(places, key=lambda place: sum(_is_there(place, name) for name in sample))


def _is_there(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):
        return False
