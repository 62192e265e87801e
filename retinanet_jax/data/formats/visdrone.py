"""VisDrone-DET (2018, 2019): a text file for each image, a line for each object.

A line is `x,y,width,height,score,category,truncation,occlusion` in pixels, perhaps with a comma
behind it; categories are numbers. As the README and the code of VisDrone2018-DET-toolkit have it:
ten categories are evaluated. Ignored regions (0) are not; detections in them are not counted. A
score of 0 marks an object that is ignored in its own class. Detections of "others" (11) are not
considered, either: here others are ignored regions, and not a class.
"""

import functools
import re
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import list_folder
from retinanet_jax.data.annotations.folder_parts import Part, PartsDataset, find_part, find_parts
from retinanet_jax.data.annotations.label_lines import LineFormat, kind_of, read_split
from retinanet_jax.data.annotations.raw import EVERY_CLASS, Layout, RawObject
from retinanet_jax.data.data_errors import DataError

CLASSES = (
    *("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle"),
    *("bus", "motor"),
)
_IGNORED_REGIONS, _OTHERS = 0, len(CLASSES) + 1
_RELEASE = re.compile(r"visdrone\d*[-_]det[-_](.+)", re.IGNORECASE)
# Ten fields would be those of a video.
_LINE = re.compile(r"\s*(-?[\d.]+\s*,\s*){7}-?[\d.]+\s*,?\s*")
_FIX = "write x,y,width,height,score,category,truncation,occlusion"


def find(root: Path) -> Layout | None:
    """Returns the layout of VisDrone2019-DET-<split>/, or of images/ and annotations/.

    Raises:
      DataError: a split has two releases.
    """
    splits = _releases(root) or find_parts(root, kind_of(_VISDRONE))
    if not splits:
        return None
    if list(splits) == ["train"] and (own := _RELEASE.fullmatch(root.name)):
        splits = {own[1].lower(): splits["train"]}
    read = functools.partial(read_split, _VISDRONE, PartsDataset(root, splits, CLASSES))
    return Layout("visdrone", "VisDrone-DET", tuple(splits), read, (root,))


def _releases(root: Path) -> dict[str, Part]:
    """The splits in folders that are named as the archives are."""
    splits: dict[str, Part] = {}
    folders: dict[str, str] = {}
    for name in list_folder(root).folders:
        match = _RELEASE.fullmatch(name)
        part = _part(root / name) if match else None
        if match is None or part is None:
            continue
        split = match[1].lower()
        if split in splits:
            what = f"both {folders[split]}/ and {name}/ are the split {split!r}"
            raise DataError("ambiguous split", root, "", what, "move one of them elsewhere")
        splits[split], folders[split] = part, name
    return splits


def _part(folder: Path) -> Part | None:
    """The annotations and images of a folder, or of one of its own name in it."""
    kind = kind_of(_VISDRONE)
    return find_part(folder, kind) or find_part(folder / folder.name, kind)


def _begins(lines: list[str]) -> bool:
    return bool(lines) and _LINE.fullmatch(lines[0]) is not None


def _parse(
    line: str, class_names: tuple[str, ...] | None, path: Path, where: str, found: set[str]
) -> RawObject:
    """The object of a line."""
    words = [word.strip() for word in line.strip().removesuffix(",").split(",")]
    numbers = fields.numbers_of_words(words)
    if len(numbers) != 8 or None in numbers:
        raise DataError("label line", path, where, f"is {fields.short(line)}", _FIX)
    x, y, width, height, score, category = numbers[:6]
    if score not in (0, 1):
        what, fix = f"score is {words[4]}", "write 1, or 0 for an object that is ignored"
        raise DataError("score", path, where, what, fix)
    if category not in range(_OTHERS + 1):
        what = f"category is {words[5]}"
        fix = f"write 1 to {len(CLASSES)}, 0 for an ignored region or {_OTHERS} for others"
        raise DataError("unknown category", path, where, what, fix)
    box = x, y, width, height
    if category in (_IGNORED_REGIONS, _OTHERS):
        return RawObject(EVERY_CLASS, box, where, crowd=True)
    return RawObject(CLASSES[int(category) - 1], box, where, crowd=score == 0)


_VISDRONE = LineFormat(("annotations",), _begins, _parse, ".jpg", leaves_out_empty=True)
