"""Hugging Face's imagefolder: metadata.jsonl or metadata.csv beside the images.

Each line names a file and has `objects`: lists of equal length, `bbox` as x, y, width, height in
pixels and the classes, as numbers or names; or a list of objects with these fields. In a CSV file
`objects` is JSON or as Python shows it. Also read: the same in another field, or as lists in the
entry itself. Names of numbered classes are taken from classes.txt, or from README.md
(`class_label`).
"""

import csv
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.class_lists import find_class_names
from retinanet_jax.data.annotations.folder_files import (
    list_folder,
    read_head,
    read_json_lines,
    read_text,
    relative_name,
    text_encoding,
)
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawSplit
from retinanet_jax.data.annotations.split_names import is_split_name
from retinanet_jax.data.annotations.yaml_text import load_yaml
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.csv_boxes import literal
from retinanet_jax.data.formats.imagefolder_objects import read_objects, stated_objects

METADATA = ("metadata.jsonl", "metadata.csv")
_FILE_FIELD = re.compile(r"(.+_)?file_name")
_HEAD = 1 << 16


class ImageFolder(NamedTuple):
    """Metadata files by split; `in_names`: whether the folders of the images are the splits."""

    root: Path
    files: dict[str, Path]
    class_names: tuple[str, ...] | None
    in_names: bool = False


def find(root: Path) -> Layout | None:
    """Returns the layout of an imagefolder with objects, in a folder or in its data/.

    Raises:
      DataError: the metadata cannot be read, or the class names are broken.
    """
    for folder in (root, root / "data"):
        names = [""] if _metadata(folder) else list_folder(folder).folders
        files = {
            name: _metadata(folder / name) for name in names if not name or is_split_name(name)
        }
        files = {name: path for name, path in files.items() if path and _has_objects(path)}
        if files:
            break
    else:
        return None
    class_names, in_names = _class_names(root), "" in files
    if in_names:
        found = dict.fromkeys(_split_of(str(e.get(f))) for e, f in _named_entries(files[""]))
        files = dict.fromkeys(found or ["train"], files[""])
    read = functools.partial(read_split, ImageFolder(root, files, class_names, in_names))
    return Layout("imagefolder", "Hugging Face's imagefolder", tuple(files), read, (root,))


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def _has_objects(path: Path) -> bool:
    head = read_head(path, _HEAD)
    text = head.decode(text_encoding(head), "ignore")
    if path.suffix == ".jsonl":
        return '"bbox"' in text
    return "objects" in next(csv.reader(text.splitlines()[:1]), [])


def _named_entries(path: Path) -> Iterator[tuple[dict, str]]:
    """The entries with the name of their field that names the file; others are left out."""
    for _, entry in _entries(path):
        field = _file_field(entry)
        if field is not None:
            yield entry, field


def _split_of(name: str) -> str:
    first = name.replace("\\", "/").removeprefix("./").partition("/")[0]
    return first if is_split_name(first) else "train"


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """('line 1', entry) and so on; a line that is not JSON has a DataError for its entry.

    Raises:
      DataError: the file cannot be read.
    """
    if path.suffix != ".csv":
        yield from read_json_lines(path)
        return
    encoding = text_encoding(read_head(path, 4))
    try:
        with path.open(encoding=encoding, newline="") as file:
            reader = csv.DictReader(file)
            for entry in reader:
                yield f"line {reader.line_num}", _decoded(entry)
    except (OSError, UnicodeError, csv.Error) as error:
        what = f"cannot be read as text in {encoding} ({error})"
        raise DataError("metadata", path, "", what, "save it in UTF-8") from error


def _decoded(entry: dict) -> dict:
    """An entry of a CSV file, whose objects are text."""
    entry = {key: value for key, value in entry.items() if isinstance(key, str)}
    objects = entry.get("objects")
    if isinstance(objects, str):
        entry["objects"] = literal(objects) if objects.strip() else None
    return entry


def _file_field(entry: Any) -> str | None:
    names = entry if isinstance(entry, dict) else ()
    return next((name for name in names if _FILE_FIELD.fullmatch(name)), None)


def _class_names(root: Path) -> tuple[str, ...] | None:
    """Of classes.txt; else of the one `class_label` in the header of README.md."""
    if (listed := find_class_names([root])) is not None:
        return listed
    readme = root / "README.md"
    if not readme.is_file():
        return None
    header = re.match(r"---\s*\n(.*?)\n---\s*\n", read_text(readme), re.S)
    try:
        content = load_yaml(header[1]) if header else None
    except ValueError:
        return None
    found = {tuple(names) for names in _class_labels(content)}
    return found.pop() if len(found) == 1 else None


def _class_labels(content: Any) -> Iterator[list[str]]:
    """The lists of names of all `class_label` in a YAML header: {names: {'0': first, ...}}."""
    if isinstance(content, dict):
        label = content.get("class_label")
        names = label.get("names") if isinstance(label, dict) else None
        if isinstance(names, dict) and list(names) == [str(n) for n in range(len(names))]:
            yield [str(name) for name in names.values()]
        content = list(content.values())
    if isinstance(content, list):
        for inner in content:
            yield from _class_labels(inner)


def read_split(dataset: ImageFolder, split: str, guard: Guard) -> RawSplit:
    """Returns the images of a split with their objects, in line order; see raw.Layout."""
    path, images = dataset.files[split], []
    for where, entry in _entries(path):
        with guard:
            if isinstance(entry, Exception):
                what = f"is not JSON ({str(entry)[:200]})"
                raise DataError("metadata", path, where, what, "write one JSON object per line")
            field = _file_field(entry)
            name = fields.text(entry, field or "file_name", path, where).replace("\\", "/")
            if dataset.in_names and _split_of(name) != split:
                continue
            image = Path(os.path.normpath(path.parent / name))
            if "\0" in name or not image.is_relative_to(dataset.root):
                what = f"file_name {fields.short(name)} leads out of the folder"
                raise DataError("file_name", path, where, what, "write it relative to this file")
            value = stated_objects(entry, path, where)
            objects = read_objects(value, path, where, dataset.class_names, guard)
            name = relative_name(image, dataset.root)
            size = fields.size(entry.get("height"), entry.get("width"))
            images.append(RawImage(name, image, path, objects, where, size))
    return RawSplit(tuple(images), dataset.class_names)
