"""OIDv4_ToolKit: Dataset/<split>/<class>/ with images, and Label/ in it with a text file for each.

A line is `class x1 y1 x2 y2` in pixels; a class may have several words. The folder of a class has
the boxes of this class alone, and an image with objects of several classes is in the folder of each
of them: these copies are read as one image with all boxes. With --multiclasses, a folder has the
images of several classes and is called Apple_Orange. A second run of the tool appends the same
lines again; they are read once.
"""

import collections
import contextlib
import filecmp
import functools
import itertools
from collections.abc import Iterable
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import list_folder, relative_name, subfolder
from retinanet_jax.data.annotations.folder_parts import (
    Part,
    PartsDataset,
    has_annotations,
    left_out,
)
from retinanet_jax.data.annotations.label_lines import (
    LINE_REPEATED,
    LineFormat,
    kind_of,
    read_part,
)
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawObject, RawSplit
from retinanet_jax.data.annotations.split_names import is_split_name, is_training
from retinanet_jax.data.data_errors import DataError, Guard

COPIES = "copies of an image in the folders of several classes, read as one image"
_LABELS = "Label"
_JUDGED = 20  # folders of classes by which a folder is recognized
_FIX = "write a class and x1 y1 x2 y2"


def find(root: Path) -> Layout | None:
    """Returns the layout of <split>/<class>/Label/, or of the folders of classes of one split."""
    splits = {n: _class_folders(root / n) for n in list_folder(root).folders if is_split_name(n)}
    splits = {name: found for name, found in splits.items() if found}
    if not any(map(is_training, splits)) and (found := _class_folders(root)):
        splits = {"train": found, **splits}
    if not splits:
        return None
    read = functools.partial(_read, root, splits)
    return Layout("oidv4", "OIDv4_ToolKit", tuple(splits), read, (root,))


def _class_folders(folder: Path) -> list[Part]:
    """The folders with Label/ in a folder, or itself; none if the labels are not of this format."""
    folders = [folder, *(folder / name for name in list_folder(folder).folders)]
    labels = [(one, subfolder(one, _LABELS)) for one in folders]
    parts = [Part(found, one) for one, found in labels if found]
    kind = kind_of(_OIDV4)
    return parts if any(has_annotations(part.annotations, kind) for part in parts[:_JUDGED]) else []


def _begins(lines: list[str]) -> bool:
    return bool(lines) and _class_and_corners(lines[0]) is not None


def _parse(
    line: str, class_names: tuple[str, ...] | None, path: Path, where: str, found: set[str]
) -> RawObject:
    """The object of a line."""
    if (stated := _class_and_corners(line)) is None:
        raise DataError("label line", path, where, f"is {fields.short(line.strip())}", _FIX)
    name, (x1, y1, x2, y2) = stated
    return RawObject(fields.class_name(name, None, path, where), (x1, y1, x2 - x1, y2 - y1), where)


def _class_and_corners(line: str) -> tuple[str, list[float]] | None:
    """The class and the four numbers behind it; None where the line is not of this form."""
    words = line.split()
    corners = [number for number in fields.numbers_of_words(words[-4:]) if number is not None]
    # A fifth number would be that of another format, or of a class that is not named.
    if len(words) < 5 or len(corners) < 4 or fields.finite(words[-5], lenient=True) is not None:
        return None
    return " ".join(words[:-4]), corners


def _read(root: Path, splits: dict[str, list[Part]], split: str, guard: Guard) -> RawSplit:
    """The images of a split, each once with the objects of all folders of classes."""
    copies: dict[str, list[RawImage]] = collections.defaultdict(list)
    notes = left_out(root, itertools.chain(*splits.values()), kind_of(_OIDV4))
    for part in splits[split]:
        found = read_part(_OIDV4, PartsDataset(root, {}, None), part, guard)
        notes += found.notes
        for image in found.images:
            copies[image.path.name].append(image)
    images, others = [], []
    for same in copies.values():
        with guard:
            present = [image for image in same if image.path.is_file()] or same[:1]
            _check_copies(present)
            images.append(present[0]._replace(objects=_objects(root, present[0], same, notes)))
            others += [image.path for image in present[1:]]
            notes += [(COPIES, str(present[0].path))] * (len(same) > 1)
    copied = tuple(map(str, others))
    return RawSplit(tuple(images), notes=tuple(notes), box_form="corners", copies=copied)


def _check_copies(images: list[RawImage]) -> None:
    """Raises DataError for images that have one name but are not the same."""
    first, *others = (image.path for image in images)
    for other in others:
        with contextlib.suppress(OSError):  # checking the image will raise it
            if not filecmp.cmp(first, other, shallow=False):
                what = f"has the name of {other}, but is another image"
                fix = "rename one of them and its label file, or replace it with a copy"
                raise DataError("ambiguous image", first, "", what, fix)


def _objects(
    root: Path, chosen: RawImage, copies: Iterable[RawImage], notes: list[tuple[str, str]]
) -> tuple[RawObject, ...]:
    """The objects of all copies; `where` names the file of those that another file states."""
    objects: dict[tuple, RawObject] = {}
    for image in copies:
        place = f" of {relative_name(image.annotation_file, root)}"
        for found in image.objects:
            key = found.class_name, found.box
            if key in objects:
                notes.append((LINE_REPEATED, f"{image.annotation_file}: {found.where}"))
            elif image.annotation_file == chosen.annotation_file:
                objects[key] = found
            else:
                objects[key] = found._replace(where=found.where + place)
    return tuple(objects.values())


_OIDV4 = LineFormat((_LABELS,), _begins, _parse, ".jpg", "corners")
