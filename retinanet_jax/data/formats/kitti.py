"""KITTI's labels: a text file for each image, a line for each object.

A line is `class truncated occluded alpha x1 y1 x2 y2` and seven numbers of the object in space, and
perhaps a confidence; the box is in pixels. A class may have several words. DontCare marks a region
whose objects of any class are ignored.
"""

import contextlib
import functools
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_parts import PartsDataset, class_names_of, find_parts
from retinanet_jax.data.annotations.label_lines import LineFormat, kind_of, read_split
from retinanet_jax.data.annotations.raw import EVERY_CLASS, Layout, RawObject
from retinanet_jax.data.data_errors import DataError

_DONT_CARE = "dontcare"
_NUMBERS = (15, 14)  # behind the name of the class, with a confidence and without


def find(root: Path) -> Layout | None:
    """Returns the layout of label_2/ and image_2/ (perhaps in training/), or labels/ and images/.

    Raises:
      DataError: its list of class names is broken.
    """
    splits = find_parts(root, kind_of(_KITTI))
    if not splits:
        return None
    dataset = PartsDataset(root, splits, class_names_of(root, splits))
    read = functools.partial(read_split, _KITTI, dataset)
    return Layout("kitti", "KITTI labels", tuple(splits), read, (root,))


def _begins(lines: list[str]) -> bool:
    # A number in place of the class is YOLO's.
    number = bool(lines) and lines[0].lstrip()[0].isdigit()
    return bool(lines) and not number and _class_and_numbers(lines[0]) is not None


def _parse(
    line: str, class_names: tuple[str, ...] | None, path: Path, where: str, found: set[str]
) -> RawObject:
    """The object of a line."""
    label, numbers = _class_and_numbers(line) or ("", [])
    corners = [fields.finite(corner) for corner in numbers[3:7]]
    if len(corners) != 4 or None in corners:
        what, fix = f"is {fields.short(line)}", "write a class and 14 numbers"
        raise DataError("label line", path, where, what, fix)
    x1, y1, x2, y2 = corners
    box = x1, y1, x2 - x1, y2 - y1
    if label.lower() == _DONT_CARE:
        return RawObject(EVERY_CLASS, box, where, crowd=True)
    return RawObject(fields.class_name(label, class_names, path, where), box, where)


def _class_and_numbers(line: str) -> tuple[str, list[float]] | None:
    """The name of the class and the numbers behind it; None where the line is not of this form."""
    words = line.split()
    for count in _NUMBERS:
        if len(words) > count:
            with contextlib.suppress(ValueError):
                return " ".join(words[:-count]), [float(word) for word in words[-count:]]
    return None


_KITTI = LineFormat(("label_2", "labels", "label"), _begins, _parse, ".png", "corners")
