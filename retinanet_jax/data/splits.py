"""Names of splits and slices of them: 'train', 'val[:32]', 'train[90%:]'."""

import re

from retinanet_jax.data.report import DataError

_SPLIT = re.compile(r"(?P<name>[\w-]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def parse_split(split: str) -> tuple[str, str | None, str | None]:
    """('val', None, '32') of 'val[:32]'.

    Raises:
      DataError: it is neither a name of letters, digits, _ and -, nor a slice of one.
    """
    match = _SPLIT.fullmatch(split)
    if not match or match["name"] == "all":
        mend = "write a name (not 'all') or a slice of it: train, train[:100], train[90%:]"
        raise DataError("split", "data.train_split or data.eval_split", "", f"is {split!r}", mend)
    return match["name"], match["start"], match["stop"]


def split_range(split: str, length: int) -> range:
    """The record numbers that a split of `length` records, or a slice of one, stands for.

    Numbers and percentages count from the end where they are negative; percentages are rounded to
    the closest record, as TFDS does.

    Raises:
      DataError: nothing is left.
    """
    _, start, stop = parse_split(split)
    numbers = range(length)[slice(_record(start, length), _record(stop, length))]
    if not numbers:
        what = f"{split!r} of {length} images is empty"
        raise DataError("empty split", "data", "", what, "take another slice")
    return numbers


def _record(bound: str | None, length: int) -> int | None:
    if bound is None or not bound.endswith("%"):
        return None if bound is None else int(bound)
    return round(int(bound[:-1]) * length / 100)
