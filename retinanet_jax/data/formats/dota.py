"""DOTA's labelTxt (1.0, 1.5, 2.0): a text file for each image, a line for each object.

A line is `x1 y1 x2 y2 x3 y3 x4 y4 category difficult`: the corners of a quadrilateral in pixels;
`difficult` may be missing. Above the objects there may be lines such as `imagesource:GoogleEarth`
and `gsd:0.14`. `difficult` is 1 for a difficult object, 2 for one that the crop of DOTA_devkit or
MMRotate cuts off; both are ignored regions of their class. MMRotate's crops are in annfiles/, the
files of X-AnyLabeling in a folder of any name, those that Ultralytics converts in labels/.
"""

import functools
import re
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import list_folder, subfolder
from retinanet_jax.data.annotations.folder_parts import (
    Part,
    PartsDataset,
    class_names_of,
    find_parts,
)
from retinanet_jax.data.annotations.label_lines import LineFormat, kind_of, read_split
from retinanet_jax.data.annotations.outlines import ROTATED, around_points
from retinanet_jax.data.annotations.raw import Layout, RawObject
from retinanet_jax.data.annotations.split_names import is_split_name
from retinanet_jax.data.data_errors import DataError

# Of several releases the latest is read.
_FOLDERS = ("labelTxt", "annfiles", "labelTxt-v2.0", "labelTxt-v1.5", "labelTxt-v1.0", "labels")
_HEADER = re.compile(r"\s*[a-z][\w ]*:", re.IGNORECASE)
_KNOWN_HEADER = re.compile(r"\s*(imagesource|gsd)\s*:", re.IGNORECASE)
_HORIZONTAL = re.compile(r"hbb|reclabel|task2", re.IGNORECASE)
_ORIGINAL = "_original"  # Ultralytics' name of the labels that it converts: labels/train_original
_DIFFICULT = ("0", "1", "2")
_FIX = "write x1 y1 x2 y2 x3 y3 x4 y4, a category, and 0 or 1 for difficult"


def find(root: Path) -> Layout | None:
    """Returns the layout of labelTxt/ or annfiles/ beside images/, perhaps in split folders.

    Raises:
      DataError: the list of class names is broken.
    """
    splits = find_parts(root, kind_of(_DOTA))
    if not splits:
        return None
    names = dict.fromkeys(part.annotations.name for part in splits.values())
    if list(splits) == ["train"]:
        splits = _originals(splits["train"]) or splits
    splits = {n: p._replace(annotations=_innermost(*p[:2])) for n, p in splits.items()}
    dataset = PartsDataset(root, splits, class_names_of(root, splits))
    read = functools.partial(read_split, _DOTA, dataset)
    tool = f"DOTA labels in {', '.join(names)}"
    return Layout("dota", tool, tuple(splits), read, (root,))


def _originals(part: Part) -> dict[str, Part]:
    """The splits labels/train_original, ... with images/train, ..."""
    names = [name.removesuffix(_ORIGINAL) for name in list_folder(part.annotations).folders]
    places = {n: subfolder(part.images, n) for n in names if is_split_name(n)}
    return {
        name: Part(part.annotations / f"{name}{_ORIGINAL}", images)
        for name, images in places.items()
        if images is not None
    }


def _innermost(folder: Path, images: Path) -> Path:
    """The folder in it that has the labels: archives are often extracted into one of their name.

    Those of the same objects in upright boxes, and folders that `images` has too, do not count.
    """
    listing, beside = list_folder(folder), list_folder(images).folders
    inner = [name for name in listing.folders if not _HORIZONTAL.search(name)]
    only = subfolder(folder, _FOLDERS[0]) or (folder / inner[0] if len(inner) == 1 else None)
    if listing.with_suffix(".txt") or only is None or only.name in beside:
        return folder
    return _innermost(only, images)


def _begins(lines: list[str]) -> bool:
    if lines and _KNOWN_HEADER.match(lines[0]):
        return True
    words = next((line for line in lines if not _HEADER.match(line)), "").split()
    if len(words) < 9 or None in _corners(words):
        return False
    # A number in place of the category is YOLO's.
    return fields.finite(words[8], lenient=True) is None


def _corners(words: list[str]) -> list[float | None]:
    return fields.numbers_of_words(words[:8])


def _parse(
    line: str, class_names: tuple[str, ...] | None, path: Path, where: str, found: set[str]
) -> RawObject | None:
    """The object of a line; None for a header."""
    if _HEADER.match(line):
        return None
    words = line.split()
    numbers, rest = _corners(words), words[8:]
    if not rest or None in numbers:
        raise DataError("label line", path, where, f"is {fields.short(line)}", _FIX)
    difficult = rest.pop() if len(rest) > 1 and rest[-1] in _DIFFICULT else "0"
    name = fields.class_name(" ".join(rest), class_names, path, where)
    xs, ys = numbers[::2], numbers[1::2]
    box = around_points(xs, ys)
    if len(set(xs)) > 2 or len(set(ys)) > 2:
        found.add(ROTATED)
    return RawObject(name, box, where, crowd=difficult != "0")


_DOTA = LineFormat(_FOLDERS, _begins, _parse, ".png", leaves_out_empty=True)
