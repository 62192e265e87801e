"""Fields of the entries of annotation files: typed values, or an error that names the entry."""

import math
import reprlib
from collections.abc import Collection

from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError

INT64 = 2**63
# Bounded in depth and width: what stands in a file can be anything.
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 3, 60, 60


def field(entry, name: str, path: AnyPath, where: str):
    """The value of an entry's field."""
    if not isinstance(entry, dict):
        raise DataError("entry", path, where, f"is {short(entry)}", "write a JSON object")
    if name not in entry:
        raise DataError("missing field", path, where, f"has no field {name!r}", f"add {name!r}")
    return entry[name]


def integer(entry, name: str, path: AnyPath, where: str) -> int:
    """An integer of 64 bits; True and 1.0 are none."""
    value = field(entry, name, path, where)
    if isinstance(value, bool) or not isinstance(value, int) or not -INT64 <= value < INT64:
        what = f"{name} is {short(value)}"
        raise DataError("wrong type", path, where, what, "write an integer")
    return value


def text(entry, name: str, path: AnyPath, where: str) -> str:
    """A string that UTF-8 can write and that is one line (TFDS keeps names one a line)."""
    value = field(entry, name, path, where)
    plain = isinstance(value, str) and value.strip() != "" and len(value.splitlines()) == 1
    if not plain or any("\ud800" <= letter <= "\udfff" for letter in value):
        what = f"{name} is {short(value)}"
        raise DataError("wrong type", path, where, what, "write a string of one line")
    return value


def finite(value) -> float | None:
    """The number as a finite float; None for anything else, booleans included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def box(entry, path: AnyPath, where: str) -> list[float]:
    """`bbox`: four finite numbers."""
    value = entry.get("bbox")
    numbers = [finite(v) for v in value] if isinstance(value, list) else []
    if len(numbers) != 4 or None in numbers:
        what = f"bbox is {short(value)}"
        raise DataError("bbox", path, where, what, "write [x, y, width, height], numbers")
    return numbers


def area(entry, path: AnyPath, where: str) -> float | None:
    """`area`: square pixels, None if it is left out."""
    value = entry.get("area")
    number = finite(value)
    if value is not None and (number is None or not 0 <= number < INT64):
        what = f"area is {short(value)}"
        raise DataError("area", path, where, what, "write square pixels, or leave it out")
    return number


def crowd(entry, path: AnyPath, where: str) -> bool:
    """`iscrowd`: 0 or 1, 0 if it is left out."""
    value = entry.get("iscrowd", 0)
    if value not in (0, 1):
        what = f"iscrowd is {short(value)}"
        raise DataError("iscrowd", path, where, what, "write 0 or 1, or leave it out")
    return bool(value)


def category(entry, known: Collection[int], path: AnyPath, where: str) -> int:
    """`category_id`: one of the known ids."""
    value = integer(entry, "category_id", path, where)
    if value not in known:
        what = f"category_id {value} is not among the categories"
        raise DataError("unknown category", path, where, what, "add it there or fix it")
    return value


def short(value) -> str:
    """A value of any kind and size in at most 60 characters, for a message."""
    shown = _REPR.repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
