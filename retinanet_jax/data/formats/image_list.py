"""Lists of images with their boxes: a line for each image, in a text file for each split.

A line is `path x1,y1,x2,y2,class x1,y1,x2,y2,class ...`: corners in pixels and the number of the
class, from 0. keras-yolo3 and its many descendants read and write such files (2007_train.txt), as
do pytorch-YOLOv4 (train.txt) and Roboflow (YOLO Keras TXT, YOLOv4 PyTorch TXT:
<split>/_annotations.txt). A line without boxes is an image without objects. Paths may be those of
another machine, whose images are found by name.

Class names are those of a text file with one name a line: beside the list, or in model_data/.
Without such a file, the numbers are the names.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.class_lists import (
    CLASS_FILES,
    find_class_names,
    read_class_names,
)
from retinanet_jax.data.annotations.folder_files import list_folder, read_lines
from retinanet_jax.data.annotations.label_lines import LINE_REPEATED
from retinanet_jax.data.annotations.outlines import Box
from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_content import (
    Content,
    ImageEntry,
    Region,
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_files import find_layout_of
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.csv_columns import is_number
from retinanet_jax.data.formats.image_list_lines import has_boxes, split_line

_CLASS_FILES = ("_classes.txt", *CLASS_FILES)
# Of public datasets: they come with the code that reads such lists.
_PUBLIC = ("coco_classes.txt", "voc_classes.txt", "coco.names", "voc.names")
_FOLDERS = ("model_data", "data")
_FIX = "write x1,y1,x2,y2,class without spaces: four numbers and a class number, from 0"


def find(root: Path) -> Layout | None:
    """Returns the image lists in a folder, its split folders or data/ in it, or one such file.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    folder = root if root.is_dir() else root.parent
    tool = "image list with boxes (keras-yolo3)"
    parse = functools.partial(_parse, folder)
    kind = SplitFileFormat(
        "image_list", tool, (".txt",), has_boxes, parse, _box, box_form="corners"
    )
    return find_layout_of(kind, root, ["data"])


def _parse(root: Path, path: Path, guard: Guard) -> Content:
    names = _class_names(path, root)
    lines: dict[str, int] = {}
    notes = []
    for number, line in read_lines(path):
        if lines.setdefault(line.strip(), number) != number:
            notes.append((LINE_REPEATED, f"{path}: line {number}"))
    entries = [_entry(line, number, names, path, guard) for line, number in lines.items()]
    return Content(entries, names, tuple(notes))


def _entry(
    line: str, number: int, names: tuple[str, ...] | None, path: Path, guard: Guard
) -> ImageEntry:
    where = f"line {number}"
    name, boxes = split_line(line)
    regions = []
    for count, text in enumerate(boxes, 1):
        with guard:
            place = f"box {count}"
            corners, _, label = text.rpartition(",")
            if corners.count(",") == 3:  # others are errors of the box
                label = _name_of(label, names, path, f"{where}: {place}")
            regions.append(Region(place, label, text))
    return ImageEntry([name], where, regions)


def _name_of(label: str, names: tuple[str, ...] | None, path: Path, where: str) -> str:
    """The name of a class number; a name stays as it is."""
    if not is_number(label) or label in (names or ()):
        return label
    number = fields.as_integer(label)
    known = f"0 to {len(names) - 1}" if names else "numbers below 1,000,000"
    if number is None or not 0 <= number < (len(names) if names else 1e6):
        what = f"has the class {fields.short(label)}, but classes are {known}"
        raise DataError("unknown class", path, where, what, "add its name, or fix the number")
    return names[number] if names else str(number)


def _box(shape: str, path: Path, where: str, found: set[str]) -> Box:
    numbers = fields.numbers_of_words(shape.split(",")[:-1])
    if len(numbers) != 4 or None in numbers:
        raise DataError("box", path, where, f"is {fields.short(shape)}", _FIX)
    x1, y1, x2, y2 = numbers
    return x1, y1, x2 - x1, y2 - y1


def _class_names(path: Path, root: Path) -> tuple[str, ...] | None:
    """The names in classes.txt and the like beside a list, else in the one other list of classes.

    Raises:
      DataError: a list of classes is broken, or there are several that differ.
    """
    folders = list(dict.fromkeys([path.parent, root, *(root / name for name in _FOLDERS)]))
    for folder in folders:
        if (names := find_class_names([folder], _CLASS_FILES)) is not None:
            return names
    found = {file: read_class_names(file) for folder in folders for file in _others(folder)}
    own = {file: names for file, names in found.items() if file.name not in _PUBLIC} or found
    if len(set(own.values())) > 1:
        listed = ", ".join(str(file.relative_to(root)) for file in own)
        what = f"several lists of classes may belong to it: {listed}"
        fix = f"copy the right one to {path.parent / 'classes.txt'}"
        raise DataError("class names", path, "", what, fix)
    return next(iter(own.values()), None)


def _others(folder: Path) -> Iterator[Path]:
    """Lists of classes with another name in front: cls_classes.txt, coco.names."""
    for name in list_folder(folder).files:
        if re.fullmatch(r".+([_-]classes?\.txt|\.names)", name, re.IGNORECASE):
            yield folder / name
