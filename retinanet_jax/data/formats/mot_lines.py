"""gt.txt of MOTChallenge: a line for each object in a frame.

A line is `frame,id,left,top,width,height,flag,class,visibility`. As the development kit has it,
frames and pixels are numbered from 1, pedestrians with the flag 1 are evaluated, and detections of
the distractors (persons on vehicles, static persons, distractors, reflections) do not count. Its
evaluation of detections also leaves out pedestrians of whom less than a half is visible, in MOT20
less than a quarter; the latter are ignored here. Other classes are not evaluated: non-motorized
vehicles and crowds, in which pedestrians are not told apart, are ignored as well, and cars,
bicycles, motorbikes and occluders are background. MOT15 has no classes: its lines end with three
coordinates in space.

With gt/labels.txt, as CVAT and Datumaro write it, pixels are numbered from 0, a class is the number
of its line, from 1, and an object with the flag 0 is ignored in its class. The visibility only
tells occluded objects from others.
"""

import collections
from collections.abc import Sequence
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import read_lines
from retinanet_jax.data.annotations.raw import EVERY_CLASS, RawObject
from retinanet_jax.data.data_errors import DataError, Guard

PEDESTRIAN = "pedestrian"
BACKGROUND = "cars, bicycles, motorbikes and occluders, which are not evaluated, left out"
HIDDEN = "pedestrians of whom less than a quarter is visible, ignored"
_PEDESTRIAN = 1
_IGNORED = (2, 6, 7, 8, 12, 13)
_BACKGROUND = (3, 4, 5, 9, 10, 11)
_LEAST_VISIBLE = 0.25
_FORM = "frame,id,left,top,width,height,flag,class,visibility"


def objects_by_frame(
    path: Path, class_names: tuple[str, ...] | None, guard: Guard, notes: list[tuple[str, str]]
) -> dict[int, list[RawObject]]:
    """Returns the objects by the number of their frame; notes are added to `notes`.

    `class_names` are those of gt/labels.txt, or None.
    """
    found: dict[int, list[RawObject]] = collections.defaultdict(list)
    without_classes = False
    for number, line in read_lines(path):
        with guard:
            where = f"line {number}"
            # Datumaro takes the numbers of images whose names are numbers, which may begin with 0.
            values = _numbers(line, 1 if class_names is None else 0, path, where)
            one = (
                _of_challenge(values, path, where, notes)
                if class_names is None
                else _of_labels(values, class_names, path, where)
            )
            without_classes |= one is not None and one.class_name == fields.ONE_CLASS
            objects = found[int(values[0])]
            objects += [] if one is None else [one]
    if without_classes and class_names is None:
        notes.append((fields.NO_CLASSES, str(path)))
    return found


def _numbers(line: str, first_frame: int, path: Path, where: str) -> list[float]:
    """The numbers of a line, of which the frame and the flag are checked."""
    values = fields.numbers_of_words(line.strip().removesuffix(",").split(","))
    if not 7 <= len(values) <= 10 or None in values:
        what = f"is {fields.short(line.strip())}"
        raise DataError("line", path, where, what, f"write {_FORM}")
    if fields.as_integer(values[0]) is None or values[0] < first_frame:
        what, fix = f"the frame is {values[0]:g}", f"number the frames from {first_frame}"
        raise DataError("frame", path, where, what, fix)
    if values[6] not in (0, 1):
        what = f"the flag is {values[6]:g}"
        raise DataError("flag", path, where, what, "write 1, or 0 for an object that is ignored")
    return values


def _of_challenge(
    values: Sequence[float], path: Path, where: str, notes: list[tuple[str, str]]
) -> RawObject | None:
    """The object of a line of MOTChallenge; None for one that is background."""
    left, top, width, height, flag = values[2:7]
    box = left - 1, top - 1, width, height
    if len(values) in (7, 10):
        if _may_be_class(values[7:]):
            what = "has 10 numbers, of which the eighth looks like a class"
            raise DataError("line", path, where, what, f"write {_FORM}")
        return RawObject(fields.ONE_CLASS, box, where, crowd=flag == 0)
    kind = values[7]
    if kind not in (_PEDESTRIAN, *_IGNORED, *_BACKGROUND) or (flag == 1 and kind != _PEDESTRIAN):
        what = f"class {kind:g} with the flag {flag:g} is not one of MOTChallenge"
        fix = "write the names of the classes in gt/labels.txt, one per line"
        raise DataError("unknown class", path, where, what, fix)
    if kind in _BACKGROUND:
        notes.append((BACKGROUND, f"{path}: {where}"))
        return None
    if kind in _IGNORED:
        return RawObject(EVERY_CLASS, box, where, crowd=True)
    hidden = len(values) == 9 and values[8] < _LEAST_VISIBLE
    notes += [(HIDDEN, f"{path}: {where}")] * (hidden and flag == 1)
    return RawObject(PEDESTRIAN, box, where, crowd=hidden or flag == 0)


def _may_be_class(values: Sequence[float]) -> bool:
    """Whether the last three numbers are not coordinates but a class and attributes."""
    are_whole = all(value.is_integer() and value >= 0 for value in values)
    return len(values) == 3 and are_whole and values[0] >= 1


def _of_labels(
    values: Sequence[float], class_names: tuple[str, ...], path: Path, where: str
) -> RawObject:
    """The object of a line whose class is one of gt/labels.txt."""
    x, y, width, height, flag = values[2:7]
    kind = fields.as_integer(values[7]) if len(values) in (8, 9) else None
    if kind is None or not 1 <= kind <= len(class_names):
        shown = f"is {values[7]:g}" if len(values) in (8, 9) else "is missing"
        what = f"the class {shown}, but gt/labels.txt has the classes 1 to {len(class_names)}"
        raise DataError("unknown class", path, where, what, "add its name there, or fix the number")
    return RawObject(class_names[kind - 1], (x, y, width, height), where, crowd=flag == 0)
