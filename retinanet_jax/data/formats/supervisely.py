"""Supervisely's projects: meta.json, and datasets with img/ and ann/, a JSON file for each image.

A dataset may have further ones in datasets/. These are of its split, unless their own names are
those of splits.

Rectangles and the bounding boxes of polygons and masks are read. Points, lines and other shapes
have no box and are left out. A rectangle is given by two corners, as in Supervisely's conversions
from and to COCO.
"""

import base64
import binascii
import functools
import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.class_lists import checked_class_names
from retinanet_jax.data.annotations.folder_files import (
    ascii_head,
    decode_text,
    list_folder,
    parse_json,
    read_many,
    relative_name,
    subfolder,
)
from retinanet_jax.data.annotations.folder_parts import (
    ImageNames,
    Kind,
    Part,
    annotation_files,
    find_part,
    left_out,
)
from retinanet_jax.data.annotations.ignore_marks import is_ignored
from retinanet_jax.data.annotations.outlines import Box, around_points
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawObject, RawSplit
from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.annotations.split_names import is_split_name
from retinanet_jax.data.data_errors import DataError, Guard

OTHERS = "shapes of other types, left out"
_WITHOUT_BOX = ("point", "line", "graph")
_FOLDERS, _META = ("ann",), "meta.json"
_HEAD = 1 << 16
_PNG = b"\x89PNG\r\n\x1a\n"


def find(root: Path) -> Layout | None:
    """Returns the layout of a project, or of one of its datasets; each dataset is a split.

    Raises:
      DataError: meta.json is broken.
    """
    found = list(_datasets(root, "train"))
    for name in () if found else list_folder(root).folders:
        found += _datasets(root / name, name)
    splits = {split: [part for name, part in found if name == split] for split, _ in found}
    if len(splits) == 1 and not is_split_name(*splits):
        splits = {"train": next(iter(splits.values()))}
    if not splits:
        return None
    dataset = _Project(root, splits, _class_names(root) or _class_names(root.parent))
    read = functools.partial(_read_split, dataset)
    outside = root.parent / _META  # read where the root is one dataset of a project
    folders = (root, outside) if outside.is_file() else (root,)
    return Layout("supervisely", "Supervisely project", tuple(splits), read, folders)


class _Project(NamedTuple):
    """The datasets of a project by split, and the class names of meta.json."""

    root: Path
    splits: dict[str, list[Part]]
    class_names: tuple[str, ...] | None


def _datasets(folder: Path, split: str) -> Iterator[tuple[str, Part]]:
    """Yields the dataset of a folder and those in it, each with its split."""
    if (own := find_part(folder, _KIND)) is not None:
        yield split, own
    inner = subfolder(folder, "datasets")
    if inner is not None and find_part(inner, _KIND) is None:
        for name in list_folder(inner).folders:
            yield from _datasets(inner / name, name if is_split_name(name) else split)


def _is_supervisely(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    return all(name in head for name in (b'"size"', b'"objects"', b'"tags"', b'"height"'))


_KIND = Kind(".json", _is_supervisely, _FOLDERS)


def _class_names(folder: Path) -> tuple[str, ...] | None:
    """The classes of meta.json; None where there is no such file."""
    path = folder / _META
    if not path.is_file():
        return None
    content = parse_json(decode_text(path.read_bytes(), path), path)
    classes = fields.field(content, "classes", path, "")
    if not isinstance(classes, list):
        what = f"classes is {fields.short(classes)}"
        raise DataError("class names", path, "", what, "write a list")
    titles = [fields.text(c, "title", path, f"classes[{i}]") for i, c in enumerate(classes)]
    return checked_class_names(titles, path)


def _read_split(dataset: _Project, split: str, guard: Guard) -> RawSplit:
    """The images of a split with their objects; see raw.Layout."""
    parts = itertools.chain(*dataset.splits.values())
    notes = left_out(dataset.root, parts, _KIND)
    read = (_images(dataset, part, guard, notes) for part in dataset.splits[split])
    return RawSplit(tuple(itertools.chain(*read)), dataset.class_names, notes=tuple(notes))


def _images(
    dataset: _Project, part: Part, guard: Guard, notes: list[tuple[str, str]]
) -> list[RawImage]:
    files = annotation_files(part, _KIND.suffix)
    names = ImageNames(part.images, files.keys())
    images = []
    for (name, file), data in zip(files.items(), read_many(list(files.values())), strict=True):
        path = Path(file)
        with guard:
            if isinstance(data, DataError):
                raise data
            content = parse_json(decode_text(data, path), path)
            if not isinstance(content, dict) or "objects" not in content:
                continue  # another JSON file of the folder
            image = names.path(name)
            if name not in names.names:  # a.json instead of a.jpg.json
                image = names.only(name, path) or image
            objects = _objects(content["objects"], path, dataset.class_names, guard, notes)
            place = relative_name(image, dataset.root), Path(image), path
            stated = content.get("size") if isinstance(content.get("size"), dict) else {}
            size = fields.size(stated.get("height"), stated.get("width"))
            images.append(RawImage(*place, objects, size=size))
    return images


def _objects(
    entries: Any,
    path: Path,
    class_names: tuple[str, ...] | None,
    guard: Guard,
    notes: list[tuple[str, str]],
) -> tuple[RawObject, ...]:
    """The objects of an image; errors of single objects are for the guard."""
    if not isinstance(entries, list):
        what = f"objects is {fields.short(entries)}"
        raise DataError("annotation file", path, "", what, "write a list")
    objects, found = [], set()
    for number, entry in enumerate(entries):
        with guard:
            where = f"objects[{number}]"
            kind = fields.text(entry, "geometryType", path, where)
            box = _box(entry, kind, path, where)
            if box is None:
                found.add(NO_BOX if kind in _WITHOUT_BOX else OTHERS)
            else:
                if kind != "rectangle":
                    found.add(OUTLINE)
                name = fields.class_name(entry.get("classTitle"), class_names, path, where)
                crowd = is_ignored(_tags(entry), path, where)
                objects.append(RawObject(name, box, where, crowd=crowd))
    notes.extend((reason, str(path)) for reason in sorted(found))
    return tuple(objects)


def _tags(entry: dict) -> dict[str, Any]:
    """The values of the tags of an object; a tag without a value is set."""
    tags = entry.get("tags")
    named = [tag for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []
    values = {str(tag.get("name")): tag.get("value") for tag in named}
    return {name: True if value is None else value for name, value in values.items()}


def _box(entry: dict, kind: str, path: Path, where: str) -> Box | None:
    """The box around an object; None for a shape without one."""
    if kind in ("rectangle", "polygon"):
        points = entry.get("points")
        corners = points.get("exterior") if isinstance(points, dict) else None
        pairs = fields.points(corners, path, where, name="points.exterior", least=2)
        return around_points(*zip(*pairs, strict=True))
    if kind in ("bitmap", "alpha_mask"):
        return _box_of_mask(entry.get("bitmap"), path, where)
    return None


def _box_of_mask(mask: Any, path: Path, where: str) -> Box:
    """The mask is a PNG, cropped to the object, whose first pixel is at `origin`."""
    try:
        x, y = map(fields.finite, mask["origin"])
        data = base64.b64decode(mask["data"])
        if not data.startswith(_PNG):
            data = zlib.decompressobj().decompress(data, 24)
        if not data.startswith(_PNG) or x is None or y is None:
            raise ValueError
        width, height = struct.unpack(">II", data[16:24])
    except (TypeError, ValueError, KeyError, binascii.Error, zlib.error, struct.error):
        what, fix = f"bitmap is {fields.short(mask)}", "write origin and data, a mask as a PNG"
        raise DataError("mask", path, where, what, fix) from None
    return x, y, float(width), float(height)
