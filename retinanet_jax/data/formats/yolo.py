"""Labels in the YOLO format: a text file for each image, a line for each object.

A line is `class x y width height`: the number of the class, then the centre and size of the box as
fractions of the image's width and height. Polygons and oriented boxes (`class x1 y1 x2 y2 x3 y3
...`) are read as their bounding boxes. After a box, these are ignored: a confidence, a track
number, or both; and keypoints, if the YAML file has `kpt_shape` or each has a visibility of 0, 1 or
2. Without `kpt_shape`, keypoints of two numbers cannot be distinguished from a polygon.
"""

import collections
import functools
import math
from pathlib import Path

from retinanet_jax.data.annotations.annotation_fields import LARGEST_FRACTION, short
from retinanet_jax.data.annotations.file_names import name_archives
from retinanet_jax.data.annotations.folder_files import decode_text, read_many, relative_name
from retinanet_jax.data.annotations.image_finder import SIMILAR
from retinanet_jax.data.annotations.label_lines import LINE_REPEATED
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawObject, RawSplit
from retinanet_jax.data.data_errors import DataError, Guard, NoAnnotationsError
from retinanet_jax.data.formats.yolo_folders import find_dataset
from retinanet_jax.data.formats.yolo_lines import BOX, POLYGON, form_of, has_tracks
from retinanet_jax.data.formats.yolo_pairs import (
    pairs_of_split,
    places_outside,
    splits_without_labels,
)
from retinanet_jax.data.formats.yolo_yaml import YoloDataset

NO_LABELS = "image without a label file, read as without objects"
SECOND = "second label file of an image, left out"


def find(root: Path, *, named: bool = False) -> Layout | None:
    """Returns the layout of the YOLO dataset in a folder, or of one that a YAML file describes.

    Args:
      named: whether the user named the layout; label files with broken lines then count, too.

    Raises:
      DataError: its YAML file or its class names are broken, or there are no label files.
    """
    dataset = find_dataset(root, named=named)
    if dataset is None:
        return None
    read = functools.partial(read_split, dataset)
    unlabelled = splits_without_labels(dataset)
    splits = tuple(split for split in dataset.splits if split not in unlabelled)
    if not splits:
        what = f"has no label file for an image of {', '.join(unlabelled)}"
        fix = "put them into labels/ beside images/, with the names of the images"
        fix += name_archives(dataset.root)
        raise NoAnnotationsError("label files", root, "", what, fix)
    folders = (dataset.root, *places_outside(dataset))
    return Layout("yolo", dataset.tool, splits, read, folders, unlabelled)


def read_split(dataset: YoloDataset, split: str, guard: Guard) -> RawSplit:
    """Returns the images of a split with their objects; see raw.Layout.

    An image without a label file has no objects. The guard collects errors of lines and label
    files, and label files with objects but without an image.
    """
    names, notes = dataset.class_names, collections.defaultdict(list)
    pairs, repeated = pairs_of_split(dataset, split, guard)
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
                if objects or pair.similar:
                    what = "has no image of the same name"
                    fix = pair.similar or "add the image or delete the labels"
                    raise DataError("missing image", pair.labels, "", what, fix)
                continue
            if not pair.labels:
                notes[NO_LABELS].append(pair.image)
            if pair.second:
                notes[SECOND].append(pair.second)
            if pair.differs:
                notes[SIMILAR].append(pair.labels)
            name = relative_name(pair.image, dataset.root)
            annotation_file = Path(pair.labels or pair.image)
            images.append(
                RawImage(name, Path(pair.image), annotation_file, objects, normalized=True)
            )
    listed = repeated + [(reason, where) for reason, places in notes.items() for where in places]
    class_names = tuple(names.values()) if names is not None else None
    return RawSplit(
        tuple(images), class_names, notes=dataset.notes + tuple(listed), box_form="center"
    )


def _objects(
    content: bytes, path: str, dataset: YoloDataset, guard: Guard, notes: dict[str, list[str]]
) -> tuple[RawObject, ...]:
    """The objects of one label file, each distinct line once; notes name the file."""
    lines = [tuple(line.split()) for line in decode_text(content, path).splitlines()]
    tracks = has_tracks([fields for fields in dict.fromkeys(lines) if fields])
    objects, seen, found = [], set(), set()
    for number, fields in enumerate(lines, 1):
        if not fields:
            continue
        if fields in seen:
            found.add(LINE_REPEATED)
            continue
        seen.add(fields)
        with guard:
            objects.append(_object(fields, path, number, dataset, tracks, found))
    for reason in sorted(found):
        notes[reason].append(path)
    return tuple(objects)


def _object(
    fields: tuple[str, ...],
    path: str,
    number: int,
    dataset: YoloDataset,
    tracks: bool,
    found: set[str],
) -> RawObject:
    where = _line(number)
    try:
        label, *values = map(float, fields)
    except ValueError:
        raise _not_numbers(fields, path, where) from None
    name = _class_name(label, dataset.class_names, path, where)
    form = form_of(values, dataset.keypoints, tracks)
    if form is None:
        what = f"has {len(fields)} fields"
        fix = "write class x y width height, or class x1 y1 x2 y2 x3 y3 ... for a polygon"
        fix += "; keypoints need kpt_shape in data.yaml"
        raise DataError("label line", path, where, what, fix)
    shares = values if form == POLYGON else values[:4]
    if not all(map(math.isfinite, shares)):
        raise _not_numbers(fields, path, where)
    if max(map(abs, shares)) > LARGEST_FRACTION:
        what = f"has {short(' '.join(fields[1:]))}, which are not fractions of the image size"
        fix = "divide x and width by the image's width, y and height by its height"
        raise DataError("pixels instead of fractions", path, where, what, fix)
    if form != BOX:
        found.add(form)
    if form == POLYGON:
        x1, y1, x2, y2 = min(shares[::2]), min(shares[1::2]), max(shares[::2]), max(shares[1::2])
        return RawObject(name, (x1, y1, x2 - x1, y2 - y1), where)
    x, y, width, height = shares
    return RawObject(name, (x - width / 2, y - height / 2, width, height), where)


def _not_numbers(fields: tuple[str, ...], path: str, where: str) -> DataError:
    what = f"is {short(' '.join(fields))}"
    fix = "write finite numbers with spaces between them: class x y width height"
    return DataError("label line", path, where, what, fix)


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
        what = f"has the class {label:g}, but classes are {known}"
        fix = "add its name, or fix the number: classes are numbered from 0"
        raise DataError("unknown class", path, where, what, fix)
    return name
