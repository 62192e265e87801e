"""Names of splits and slices of them, 'train[90%:]', and of datasets: 'folder:~/cells:val*3'."""

import re
from typing import NamedTuple

from retinanet_jax.data.data_errors import DataError

# Names of datasets. Their loaders are in dataset.py, which is not imported to check a name.
KINDS = ["shapes", "folder", "coco", "coco2014", "voc", "voc2007", "voc2012"]

# A root may hold colons; so may a split, but only inside its brackets.
_PART = re.compile(
    r"(?P<kind>\w+):(?P<root>.*):(?P<split>[^:\[\]*]+(\[[^\[\]]*\])?)(\*(?P<times>\d+))?"
)
_SPLIT = re.compile(r"(?P<name>[\w-]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def parse_split(split: str) -> tuple[str, str | None, str | None]:
    """Parses 'val[:32]' into ('val', None, '32').

    Raises:
      DataError: `split` is not a name of letters, digits, _ and -, or a slice of one.
    """
    match = _match(split)
    if not match:
        fix = "write a name (not 'all') or a slice of it: train, train[:100], train[90%:]"
        raise DataError("split", "data.train_split or data.eval_split", "", f"is {split!r}", fix)
    return match["name"], match["start"], match["stop"]


def _match(split: str) -> re.Match | None:
    match = _SPLIT.fullmatch(split)
    return None if match and match["name"] == "all" else match


def split_range(split: str, length: int) -> range:
    """Returns the record numbers of a split of `length` records, or of a slice of one.

    Negative numbers and percentages count from the end. Percentages are rounded to the closest
    record, as in TFDS.

    Raises:
      DataError: the slice is empty.
    """
    _, start, stop = parse_split(split)
    numbers = range(length)[slice(_record(start, length), _record(stop, length))]
    if not numbers:
        what = f"{split!r} of {length} images is empty"
        raise DataError("empty split", "data", "", what, "use another slice")
    return numbers


class Part(NamedTuple):
    """A dataset of a mixture: `kind` is a data.name; each image appears `times` times per epoch."""

    kind: str
    root: str
    split: str
    times: int


def parse_part(text: str) -> Part:
    """Parses 'folder:~/cells:train[:10%]*3' into Part('folder', '~/cells', 'train[:10%]', 3).

    Raises:
      DataError: the text is not KIND:ROOT:SPLIT or KIND:ROOT:SPLIT*N.
    """
    match = _PART.fullmatch(text)
    times = int(match["times"] or 1) if match else 0
    if times < 1 or match["kind"] not in KINDS or not _match(match["split"]):
        fix = (
            f"write KIND:ROOT:SPLIT or KIND:ROOT:SPLIT*N, KIND one of {', '.join(KINDS)}, N at "
            "least 1: folder:~/more_cells:train*3"
        )
        raise DataError("mixture", "data.mix", "", f"{text!r} names no dataset", fix)
    if match["kind"] == "folder" and not match["root"]:
        fix = "write the folder between the colons: folder:~/more_cells:train"
        raise DataError("mixture", "data.mix", "", f"{text!r} names no folder", fix)
    return Part(match["kind"], match["root"], match["split"], times)


def _record(bound: str | None, length: int) -> int | None:
    if bound is None or not bound.endswith("%"):
        return None if bound is None else int(bound)
    return round(int(bound[:-1]) * length / 100)
