"""Marks of objects that become ignored regions: crowds, difficult, invalid and ignored ones.

The names and values are the same for the fields, flags and attributes of all layouts and for the
columns of tables. Occluded and truncated objects are not ignored.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

from retinanet_jax.data.annotations.annotation_fields import UNSTATED, short
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError

_NAMES = ("crowd", "difficult", "groupof", "ignore", "ignored", "invalid")
_TRUE = ("1", "true", "t", "yes", "y")
_FALSE = ("0", "false", "f", "no", "n")
_UNKNOWN = (*UNSTATED, "-1", "unspecified")  # the last two of Open Images and VOC


def is_mark(name: str) -> bool:
    """Returns whether a name is that of a mark: 'difficult', 'is_crowd', 'IsGroupOf', 'ignored'."""
    return re.sub(r"[\W_]", "", name.lower()).removeprefix("is") in _NAMES


def is_ignored(entry: Any, path: AnyPath | str, where: str) -> bool:
    """Returns whether one of the fields or attributes of an object marks it as ignored.

    Args:
      entry: values by name; anything that is not a mapping has no marks.
      path, where: file and entry for messages.

    Raises:
      DataError: the value of a mark is neither true nor false.
    """
    if not isinstance(entry, Mapping):
        return False
    return any([_is_set(name, entry[name], path, where) for name in _marks_in(tuple(entry))])


@functools.lru_cache(maxsize=4096)
def _marks_in(names: tuple[str, ...]) -> tuple[str, ...]:
    """The marks among names, which are the same for most of a million objects."""
    return tuple(filter(is_mark, names))


def _is_set(name: str, value: Any, path: AnyPath | str, where: str) -> bool:
    if type(value) in (bool, int) and value in (0, 1):
        return bool(value)
    word = re.sub(r"\.0+$", "", str(value).strip().lower())
    if word not in _TRUE + _FALSE + _UNKNOWN:
        fix = "write 0 or 1, or rename it if it does not mark objects to ignore"
        raise DataError(name, path, where, f"{name} is {short(value)}", fix)
    return word in _TRUE
