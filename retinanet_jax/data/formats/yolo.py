"""Labels in the YOLO format: a text file for each image, a line for each object.

A line is `class x y width height`: the number of the class, then the centre and size of the box as
shares of the image's width and height. Also read: polygons and oriented boxes (`class x1 y1 x2 y2
x3 y3 ...`), of which the bounding box is taken; a sixth field, a confidence or the number of a
track, which is ignored; keypoints, where the YAML file has `kpt_shape`, which are ignored.
"""

import collections
import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.annotation_fields import short
from retinanet_jax.data.formats.folder_files import (
    decode_text,
    list_folder,
    read_many,
    read_text,
    relative_name,
    stem_of,
    walk,
)
from retinanet_jax.data.formats.raw import Layout, RawImage, RawObject, RawSplit
from retinanet_jax.data.formats.yolo_folders import YOLO_CLASS_FILES, find_dataset
from retinanet_jax.data.formats.yolo_yaml import YoloDataset, locate

POLYGON = "polygons or oriented boxes, bounding boxes taken"
EXTRA_FIELD = "sixth field, ignored"
KEYPOINTS = "keypoints, ignored"
DUPLICATE = "line repeated, read once"
NO_LABELS = "image without a label file, taken as without objects"
# A share above this is a pixel; boxes that leave their image a little are for the checks of boxes.
_LARGEST_SHARE = 1.5


def find(root: Path) -> Layout | None:
    """The YOLO dataset in a folder, or that a YAML file describes.

    Raises:
      DataError: its YAML file or its class names are broken.
    """
    dataset = find_dataset(root)
    if dataset is None:
        return None
    places = [place for paths in dataset.splits.values() for place in paths]
    outside = {place for place in places if not place.is_relative_to(dataset.root)}
    outside |= {Path(_label_folder(str(place))) for place in outside}
    read = functools.partial(read_split, dataset)
    folders = (dataset.root, *sorted(outside))
    return Layout("yolo", dataset.tool, tuple(dataset.splits), read, folders)


def read_split(dataset: YoloDataset, split: str, guard: Guard) -> RawSplit:
    """The images of a split with their objects; see raw.Layout.

    An image without a label file has no objects. Errors of lines and of label files, and label
    files with objects but without an image, are for the guard.
    """
    names, notes = dataset.class_names, collections.defaultdict(list)
    pairs = [pair for place in dataset.splits[split] for pair in _pairs(place, dataset.root, guard)]
    contents = read_many([pair.labels for pair in pairs if pair.labels])
    images = []
    for pair in pairs:
        content = next(contents) if pair.labels else b""
        with guard:
            if isinstance(content, DataError):
                raise content
            objects = ()
            if pair.labels and content.strip():
                objects = _objects(content, pair.labels, dataset, guard, notes)
            if pair.image is None:
                if objects:
                    what, fix = "has no image of its name", "add the image or delete the labels"
                    raise DataError("missing image", pair.labels, "", what, fix)
                continue
            if not pair.labels:
                notes[NO_LABELS].append(pair.image)
            name = relative_name(pair.image, dataset.root)
            annotation_file = Path(pair.labels or pair.image)
            images.append(
                RawImage(name, Path(pair.image), annotation_file, objects, normalized=True)
            )
    listed = [(reason, where) for reason, places in notes.items() for where in places]
    class_names = tuple(names.values()) if names is not None else None
    return RawSplit(
        tuple(images), class_names, notes=dataset.notes + tuple(listed), box_form="center"
    )


class _Pair(NamedTuple):
    """Paths of an image and of its label file; one of them may be missing."""

    image: str | None
    labels: str | None


def _pairs(place: Path, root: Path, guard: Guard) -> Iterator[_Pair]:
    """The images of a folder, or those that a text file lists, each with its label file."""
    if place.is_dir():
        for listing in walk(place):
            yield from _pairs_of_folder(listing.path, listing.images(), guard)
        return
    by_folder: dict[str, list[str]] = {}
    resolved: dict[str, str] = {}
    for line in read_text(place).splitlines():
        stated = line.strip().replace("\\", "/")
        if stated and "\0" not in stated:
            folder, name = os.path.split(stated)
            if folder not in resolved:
                # Lists name files from their own folder, the root or the folder that runs YOLO.
                found = locate(folder or ".", [place.parent, root])
                resolved[folder] = str(found or place.parent / folder)
            by_folder.setdefault(resolved[folder], []).append(name)
    for folder, names in by_folder.items():
        yield from _pairs_of_folder(folder, names, guard)


def _pairs_of_folder(folder: str, names: list[str], guard: Guard) -> Iterator[_Pair]:
    """Images of one folder with their label files, and label files without any image."""
    label_folder = _label_folder(folder)
    present = {
        stem_of(name): name
        for name in list_folder(label_folder).with_suffix(".txt")
        if name.lower() not in YOLO_CLASS_FILES
    }
    stems = collections.Counter(map(stem_of, list_folder(folder).images()))
    for name in names:
        labels, path = present.get(stem_of(name)), os.path.join(folder, name)
        if labels and stems[stem_of(name)] > 1:
            with guard:
                what = f"shares the label file {labels} with another image"
                raise DataError("ambiguous image", path, "", what, "rename one of them")
            continue
        yield _Pair(path, os.path.join(label_folder, labels) if labels else None)
    if label_folder != folder:
        for stem in present.keys() - stems.keys():
            yield _Pair(None, os.path.join(label_folder, present[stem]))


def _label_folder(folder: str) -> str:
    """The last 'images' of a path replaced by 'labels', as YOLO has it, or the folder itself."""
    parts = folder.split(os.sep)
    for place in reversed(range(len(parts))):
        if parts[place].lower() == "images":
            for labels in ("labels", "Labels", "LABELS"):
                replaced = os.sep.join([*parts[:place], labels, *parts[place + 1 :]])
                if os.path.isdir(replaced):
                    return replaced
            break
    return folder


def _objects(
    content: bytes, path: str, dataset: YoloDataset, guard: Guard, notes: dict[str, list[str]]
) -> tuple[RawObject, ...]:
    """The objects of one label file, each distinct line once; notes name the file."""
    objects, seen, found = [], set(), set()
    for number, line in enumerate(decode_text(content, path).splitlines(), 1):
        fields = tuple(line.split())
        if not fields:
            continue
        if fields in seen:
            found.add(DUPLICATE)
            continue
        seen.add(fields)
        with guard:
            objects.append(_object(fields, path, number, dataset, found))
    for reason in sorted(found):
        notes[reason].append(path)
    return tuple(objects)


def _object(
    fields: tuple[str, ...], path: str, number: int, dataset: YoloDataset, found: set[str]
) -> RawObject:
    where = _line(number)
    try:
        label, *values = map(float, fields)
    except ValueError:
        what, fix = f"is {short(' '.join(fields))}", "write numbers: class x y width height"
        raise DataError("label line", path, where, what, fix) from None
    name = _class_name(label, dataset.class_names, path, where)
    count = len(values)
    polygon = count >= 6 and count % 2 == 0 and not dataset.keypoints
    if not (polygon or count in (4, 5) or (dataset.keypoints and count > 5)):
        what = f"has {count + 1} fields"
        fix = "write class x y width height, or class x1 y1 x2 y2 x3 y3 ... for a polygon"
        raise DataError("label line", path, where, what, fix)
    shares = values if polygon else values[:4]
    finite = math.isfinite(sum(shares))
    if not finite or max(shares) > _LARGEST_SHARE or min(shares) < -_LARGEST_SHARE:
        what = f"has {short(' '.join(fields[1:]))}, which are not shares of the image's size"
        fix = "divide x and width by the image's width, y and height by its height"
        raise DataError("pixels for shares", path, where, what, fix)
    if polygon:
        found.add(POLYGON)
        x1, y1, x2, y2 = min(shares[::2]), min(shares[1::2]), max(shares[::2]), max(shares[1::2])
        return RawObject(name, (x1, y1, x2 - x1, y2 - y1), where)
    if count > 4:
        found.add(KEYPOINTS if dataset.keypoints else EXTRA_FIELD)
    x, y, width, height = shares
    return RawObject(name, (x - width / 2, y - height / 2, width, height), where)


@functools.lru_cache(maxsize=4096)
def _line(number: int) -> str:
    return f"line {number}"


def _class_name(label: float, names: dict[int, str] | None, path: str, where: str) -> str:
    if not (label >= 0 and label == label // 1):  # not a number included
        what, fix = f"has the class {label:g}", "write the number of a class, from 0"
        raise DataError("class number", path, where, what, fix)
    name = str(int(label)) if names is None and label < 1e6 else (names or {}).get(int(label))
    if name is None:
        known = f"{min(names)} to {max(names)}" if names else "numbers below 1,000,000"
        what, fix = f"has the class {label:g}, but classes are {known}", "add its name, or fix it"
        raise DataError("unknown class", path, where, what, fix)
    return name
