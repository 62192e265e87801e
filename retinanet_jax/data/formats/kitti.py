"""KITTI's labels: a text file for each image, a line for each object.

A line is `class truncated occluded alpha x1 y1 x2 y2` and seven numbers of the object in space, and
perhaps a confidence; the box is in pixels. A class may have several words. DontCare marks a region
whose objects of any class are ignored.
"""

import contextlib
import functools
from pathlib import Path

from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats import annotation_fields as fields
from retinanet_jax.data.formats.folder_files import decode_text, read_head, read_many, relative_name
from retinanet_jax.data.formats.folder_parts import (
    ImageNames,
    Kind,
    PartsDataset,
    annotation_files,
    class_names_of,
    find_parts,
)
from retinanet_jax.data.formats.raw import Layout, RawImage, RawObject, RawSplit

_DONT_CARE = "dontcare"
_FOLDERS = ("label_2", "labels", "label")
_NUMBERS = (15, 14)  # behind the name of the class, with a confidence and without
_HEAD = 1 << 12


def find(root: Path) -> Layout | None:
    """label_2/ and image_2/ in a folder or in training/; or labels/ and images/ of this format.

    Raises:
      DataError: its list of class names is broken.
    """
    splits = find_parts(root, Kind(".txt", _is_kitti, _FOLDERS))
    if not splits:
        return None
    dataset = PartsDataset(root, splits, class_names_of(root, splits))
    read = functools.partial(_read_split, dataset)
    return Layout("kitti", "KITTI labels", tuple(splits), read, (root,))


def _is_kitti(path: Path) -> bool:
    return _begins_with_an_object(read_head(path, _HEAD))


def _begins_with_an_object(data: bytes) -> bool:
    line = next(iter(data.lstrip().splitlines()), b"").decode("utf-8", "ignore")
    # A number in place of the class is YOLO's.
    return _class_and_numbers(line) is not None and not line[0].isdigit()


def _read_split(dataset: PartsDataset, split: str, guard: Guard) -> RawSplit:
    """The images of a split with their objects; see raw.Layout.

    A region that is ignored for any class is an ignored object of each class.
    """
    part = dataset.splits[split]
    names, files = ImageNames(part.images), annotation_files(part.annotations, ".txt")
    read: list[tuple[str, Path, list[RawObject], list[RawObject]]] = []
    for (stem, file), data in zip(files.items(), read_many(list(files.values())), strict=True):
        with guard:
            if isinstance(data, DataError):
                raise data
            path = Path(file)
            if stem not in names.by_stem and not _begins_with_an_object(data):
                continue  # a list of classes or a note
            image = names.only(stem, path) or names.path(f"{stem}.png")
            lines = decode_text(data, path).splitlines()
            read.append((image, path, *_objects(lines, path, dataset.class_names, guard)))
    occurring = {found.class_name for _, _, objects, _ in read for found in objects}
    classes = dataset.class_names or tuple(sorted(occurring))
    images = []
    for image, path, objects, ignored in read:
        objects += [region._replace(class_name=name) for region in ignored for name in classes]
        name = relative_name(image, dataset.root)
        images.append(RawImage(name, Path(image), path, tuple(objects)))
    return RawSplit(tuple(images), dataset.class_names, box_form="corners")


def _objects(
    lines: list[str], path: Path, class_names: tuple[str, ...] | None, guard: Guard
) -> tuple[list[RawObject], list[RawObject]]:
    """Objects, and regions to ignore, of the lines of a label file."""
    objects, ignored = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        with guard:
            where = f"line {number}"
            label, numbers = _class_and_numbers(line) or ("", [])
            corners = [fields.finite(corner) for corner in numbers[3:7]]
            if len(corners) != 4 or None in corners:
                what, fix = f"is {fields.short(line)}", "write a class and 14 numbers"
                raise DataError("label line", path, where, what, fix)
            x1, y1, x2, y2 = corners
            box = x1, y1, x2 - x1, y2 - y1
            if label.lower() == _DONT_CARE:
                ignored.append(RawObject("", box, where, crowd=True))
                continue
            name = fields.class_name(label, class_names, path, where)
            objects.append(RawObject(name, box, where))
    return objects, ignored


def _class_and_numbers(line: str) -> tuple[str, list[float]] | None:
    """The name of the class and the numbers behind it; None where the line is not of this form."""
    words = line.split()
    for count in _NUMBERS:
        if len(words) > count:
            with contextlib.suppress(ValueError):
                return " ".join(words[:-count]), [float(word) for word in words[-count:]]
    return None
