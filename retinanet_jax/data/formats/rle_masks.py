"""Bounding boxes of masks in COCO's run-length encoding, computed without decoding pixels."""

from typing import Any

import numpy as np

from retinanet_jax.data.annotations.annotation_fields import as_integer
from retinanet_jax.data.annotations.outlines import Box

_MAX_DIGITS = 8  # of 5 bits each, of one number


def box_of_rle(rle: Any) -> Box | None:
    """Returns the box around a mask {"counts": ..., "size": [height, width]}; None if it is empty.

    Counts are a list of numbers or COCO's compressed text.

    Raises:
      ValueError: it is not such a mask.
    """
    counts, height, width = _checked(rle)
    ends = np.cumsum(counts)
    if (counts < 0).any() or (ends[-1] if ends.size else 0) != height * width:
        raise ValueError("the counts do not add up to height x width")
    runs = counts[1::2] > 0
    if not runs.any():
        return None
    first, last = (ends - counts)[1::2][runs], ends[1::2][runs] - 1
    in_columns, in_rows = extents_of_runs(first, last, height)
    return in_columns[0], in_rows[0], in_columns[1], in_rows[1]


def extents_of_runs(
    first: np.ndarray, last: np.ndarray, length: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the extent of at least one run of pixels: its lines, and the places in these lines.

    Args:
      first, last: first and last pixel of each run, counted line by line.
      length: length of a line (a row or a column) in pixels.

    Returns:
      The first line and the number of lines; the first pixel in a line and the number of pixels.
    """
    (line1, place1), (line2, place2) = np.divmod(first, length), np.divmod(last, length)
    wraps = line1 != line2  # such a run has the last pixel of a line and the first of the next
    line, place = int(line1.min()), int(np.where(wraps, 0, place1).min())
    end = int(np.where(wraps, length - 1, place2).max()) + 1
    return (line, int(line2.max()) + 1 - line), (place, end - place)


def _checked(rle: Any) -> tuple[np.ndarray, int, int]:
    rle = rle if isinstance(rle, dict) else {}
    size, counts = rle.get("size"), rle.get("counts")
    sides = [as_integer(side) for side in size] if isinstance(size, list) else []
    if len(sides) != 2 or not all(side and 0 < side < 2**20 for side in sides):
        raise ValueError("the size is not [height, width]")
    if isinstance(counts, str):
        numbers = _decompressed(counts)
    elif isinstance(counts, list) and all(type(n) is int and 0 <= n < 2**40 for n in counts):
        numbers = np.array(counts, np.int64)
    else:
        raise ValueError("the counts are neither text nor a list of numbers")
    return numbers, *sides


def _decompressed(text: str) -> np.ndarray:
    """The counts of COCO's text: digits of 5 bits, lowest first; from the fourth on differences."""
    digits = np.array([ord(letter) for letter in text], np.int64) - 48
    if ((digits < 0) | (digits > 63)).any() or (digits.size and digits[-1] & 32):
        raise ValueError("the counts are not compressed as in COCO")
    lasts = np.flatnonzero(~digits & 32)
    starts = np.concatenate([[0], lasts[:-1] + 1]) if lasts.size else lasts
    if (lasts - starts >= _MAX_DIGITS).any():
        raise ValueError("the counts are not compressed as in COCO")
    places = np.arange(digits.size) - np.repeat(starts, lasts - starts + 1)
    numbers = np.add.reduceat((digits & 31) << 5 * places, starts) if starts.size else digits
    negative = (digits[lasts] & 16) > 0
    numbers = numbers - (negative.astype(np.int64) << 5 * (lasts - starts + 1))
    for chain in (slice(1, None, 2), slice(2, None, 2)):
        numbers[chain] = np.cumsum(numbers[chain])
    return numbers
