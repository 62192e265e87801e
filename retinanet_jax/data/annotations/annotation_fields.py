"""Fields of the entries of annotation files: typed values, or an error that names the entry.

With a `report`, unambiguous numbers of another type, such as "7" or 7.0 for 7, are accepted and
counted. Without a report, they are errors.
"""

import contextlib
import math
import reprlib
from collections.abc import Collection, Iterable, Sequence

from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Report

INT64 = 2**63
ONE_CLASS = "object"
NO_CLASSES = "annotations without classes, read as one class"
TEXT_NUMBER, DECIMAL_INTEGER = "number written as text", "whole number written as a decimal"
UNSTATED = ("", "nan", "na", "n/a", "null", "none")  # in lower case, as pandas and others write it
LARGEST_FRACTION = 1.5  # above it, a number is a pixel
# Bounded in depth and width: an annotation file may contain anything.
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 3, 60, 60


def field(entry, name: str, path: AnyPath | str, where: str):
    """Returns the value of a field of an entry."""
    if not isinstance(entry, dict):
        raise DataError("entry", path, where, f"is {short(entry)}", "write a JSON object")
    if name not in entry:
        raise DataError("missing field", path, where, f"has no field {name!r}", f"add {name!r}")
    return entry[name]


def integer(entry, name: str, path: AnyPath, where: str, report: Report | None = None) -> int:
    """Returns a 64-bit integer; with a report, also accepts '7' and 7.0, but never True."""
    value = field(entry, name, path, where)
    number = value if type(value) is int else as_integer(value)
    if number is None or not -INT64 <= number < INT64 or (report is None and number is not value):
        what = f"{name} is {short(value)}"
        raise DataError("wrong type", path, where, what, "write an integer")
    if type(value) is not int:
        reason = TEXT_NUMBER if isinstance(value, str) else DECIMAL_INTEGER
        report.add(reason, f"{path}: {where}: {name}")
    return number


def as_integer(value) -> int | None:
    """Returns the integer that an integer, float or string of digits stands for, or None."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        digits = value.strip()
        if digits.removeprefix("-").isdecimal() and digits.isascii() and len(digits) < 20:
            return int(digits)
        value = _float_of_text(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return None


def size(height, width) -> tuple[int, int] | None:
    """Returns the annotated (height, width) of an image; None if it is missing or invalid."""
    sides = as_integer(height), as_integer(width)
    return sides if all(side is not None and 1 <= side < 1e6 for side in sides) else None


def text(entry, name: str, path: AnyPath | str, where: str) -> str:
    """Returns a string of one line that UTF-8 can encode (TFDS stores one class name per line)."""
    value = field(entry, name, path, where)
    plain = isinstance(value, str) and value.strip() != "" and len(value.splitlines()) == 1
    if not plain or any("\ud800" <= letter <= "\udfff" for letter in value):
        what = f"{name} is {short(value)}"
        raise DataError("wrong type", path, where, what, "write a string of one line")
    return value


def entries(value, name: str, of: str, path: AnyPath | str, where: str) -> list:
    """Returns the value of a field that is a list, such as one 'of' objects."""
    if not isinstance(value, list):
        raise DataError(name, path, where, f"{name} is {short(value)}", f"write a list of {of}")
    return value


def class_name(value, known: Collection[str] | None, path: AnyPath | str, where: str) -> str:
    """Returns the class name of an object, stripped; `known=None` allows any name."""
    fix = "write the name of its class"
    if known is not None:
        fix += ", or add it to the list of classes"
    try:
        name = text({"class": value}, "class", path, where).strip()
    except DataError:
        name = ""
    if not name or (known is not None and name not in known):
        raise DataError("class name", path, where, f"the class is {short(value)}", fix)
    return name


def finite(value, *, lenient: bool = False) -> float | None:
    """Returns a number as a finite float, or None.

    Args:
      value: any value.
      lenient: whether to accept text such as '9.5'.
    """
    if lenient and isinstance(value, str):
        value = _float_of_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def points(
    value,
    path: AnyPath | str,
    where: str,
    *,
    name: str = "points",
    least: int = 1,
    fix: str = "write numbers for the x and y of each point, in pixels",
) -> list[tuple[float, float]]:
    """Returns a list of at least `least` points, each [x, y] or an object with x and y.

    `name` is its field, for the message.
    """
    entries = value if isinstance(value, list) and len(value) >= least else [None]
    pairs = [(p.get("x"), p.get("y")) if isinstance(p, dict) else p for p in entries]
    pairs = [p if isinstance(p, list | tuple) and len(p) == 2 else (None, None) for p in pairs]
    numbers = [(finite(x), finite(y)) for x, y in pairs]
    if any(None in pair for pair in numbers):
        raise DataError("points", path, where, f"{name} is {short(value)}", fix)
    return numbers


def numbers(
    entry, names: Sequence[str], path: AnyPath | str, where: str, *, lenient: bool = False
) -> list[float]:
    """Returns the finite numbers in some fields of an object.

    `where` names the object in errors; `lenient` is that of `finite`.
    """
    stated = entry if isinstance(entry, dict) else {}
    found = [finite(stated.get(name), lenient=lenient) for name in names]
    if None in found:
        what, fix = f"is {short(entry)}", f"write numbers for {', '.join(names)}"
        raise DataError("shape", path, where, what, fix)
    return found


def numbers_of_words(words: Iterable[str]) -> list[float | None]:
    """Returns the finite numbers in a list of words, with None for words that are not numbers."""
    return [finite(word, lenient=True) for word in words]


def check_fractions(numbers: Sequence[float], path: AnyPath | str, where: str) -> None:
    """Raises DataError for corners or sides of a box that are pixels, not fractions of its image.

    Boxes may extend a little beyond their image.
    """
    if max(map(abs, numbers)) > LARGEST_FRACTION:
        shown = " ".join(f"{number:g}" for number in numbers)
        what = f"the box is {short(shown)}, which are not fractions of the image size"
        fix = "divide x by the image's width and y by its height"
        raise DataError("pixels instead of fractions", path, where, what, fix)


def _float_of_text(value: str) -> float | None:
    try:
        return float(value) if "_" not in value else None
    except ValueError:
        return None


def box(entry, path: AnyPath, where: str, report: Report | None = None) -> list[float]:
    """Returns the field `bbox`: four finite numbers."""
    value = entry.get("bbox")
    if isinstance(value, list) and all(type(v) in (int, float) for v in value):
        with contextlib.suppress(OverflowError):  # the usual case, of which there are a million
            numbers = [float(v) for v in value]
            if len(numbers) == 4 and math.isfinite(sum(numbers)):
                return numbers
    lenient = report is not None
    numbers = [finite(v, lenient=lenient) for v in value] if isinstance(value, list) else []
    if len(numbers) != 4 or None in numbers:
        what = f"bbox is {short(value)}"
        raise DataError("bbox", path, where, what, "write [x, y, width, height], numbers")
    if lenient and any(isinstance(v, str) for v in value):
        report.add(TEXT_NUMBER, f"{path}: {where}: bbox")
    return numbers


def area(entry, path: AnyPath, where: str, report: Report | None = None) -> float | None:
    """Returns the field `area` in square pixels; None if it is missing or null."""
    value = entry.get("area")
    number = finite(value, lenient=report is not None)
    if value is not None and (number is None or not 0 <= number < INT64):
        what = f"area is {short(value)}"
        raise DataError("area", path, where, what, "write square pixels, or leave it out")
    if report is not None and isinstance(value, str):
        report.add(TEXT_NUMBER, f"{path}: {where}: area")
    return number


def flag(entry, name: str, path: AnyPath, where: str) -> bool:
    """Returns a flag such as `iscrowd`: 0 or 1, and 0 if it is missing or null."""
    value = entry.get(name)
    if value not in (None, 0, 1, "0", "1"):
        what = f"{name} is {short(value)}"
        raise DataError(name, path, where, what, "write 0 or 1, or leave it out")
    return value in (1, "1")


def is_true(value) -> bool:
    """Returns whether a value is true or 1, or text for them: 'true', 'True', '1'."""
    return value == 1 or (isinstance(value, str) and value.strip().lower() in ("true", "1"))


def category(
    entry, known: Collection[int], path: AnyPath, where: str, report: Report | None = None
) -> int:
    """Returns the field `category_id`, one of the known ids."""
    value = integer(entry, "category_id", path, where, report)
    if value not in known:
        what = f"category_id {value} is not among the categories"
        raise DataError("unknown category", path, where, what, "add it there or fix the id")
    return value


def short(value) -> str:
    """Returns any value as at most 60 characters of text, for a message."""
    shown = _REPR.repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
