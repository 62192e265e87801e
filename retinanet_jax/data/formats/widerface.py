"""WIDER FACE: wider_face_train_bbx_gt.txt, wider_face_val_bbx_gt.txt; a single class, face.

For each image a line with its name, a line with the number of faces, and for each face a line
`x y width height blur expression illumination invalid occlusion pose`, as the release's readme.txt
has it; an image without faces has one line of zeros. Invalid faces, too small or unclear to be
annotated, are ignored regions. Images are in WIDER_train/images/0--Parade/...

Datumaro 1.13 writes `-` for an attribute that it does not know, its own attributes with `invalid`
as the last, a class other than face behind these, and no number for an image without objects.
"""

from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import (
    read_head,
    read_text,
    suffix_of,
    text_encoding,
)
from retinanet_jax.data.annotations.label_lines import NO_AREA, has_area
from retinanet_jax.data.annotations.outlines import Box
from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_content import (
    Content,
    ImageEntry,
    Region,
    SplitFileFormat,
)
from retinanet_jax.data.annotations.split_files import find_layout_of
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

FACE = "face"
NO_NUMBER = "image without a number of faces, read as without faces"
_SPLIT_FOLDER, _NAME = "wider_face_split", "_bbx_gt.txt"
_SIDES, _ATTRIBUTES = 4, 6
_FIX = "write x y width height, and blur expression illumination invalid occlusion pose"


class _Face(NamedTuple):
    """A line and its words: the box, the flag for invalid faces, and a class if there is one."""

    line: str
    box: list[str]
    invalid: str
    name: list[str]


def find(root: Path) -> Layout | None:
    """Returns the layout of wider_face_split/ beside WIDER_train/ and WIDER_val/, or of such files.

    Raises:
      DataError: several files fit, and it is unclear which one is meant.
    """
    others = _SPLIT_FOLDER, f"wider_face_annotations/{_SPLIT_FOLDER}"
    return find_layout_of(_WIDERFACE, root, others)


def _is_widerface(path: Path) -> bool:
    """By its name, or the first lines: the name of an image, and a number of faces."""
    head = read_head(path, 1 << 12)
    lines = head.decode(text_encoding(head), "ignore").split("\n")[:2]
    if path.name.lower().endswith(_NAME):
        return _is_image(lines[0])
    return len(lines) == 2 and _is_image(lines[0]) and lines[1].strip().isdecimal()


def _is_image(line: str) -> bool:
    return suffix_of(line.strip()) in IMAGE_SUFFIXES


def _parse(path: Path, guard: Guard) -> Content:
    """The images of a file, each with the lines up to the next name of an image."""
    blocks: list[tuple[str, list[tuple[int, str]]]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if _is_image(line):
            blocks.append((line.strip(), []))
        elif line.strip():
            with guard:
                if not blocks:
                    what = f"is {fields.short(line)}, before the first image"
                    raise DataError("image", path, f"line {number}", what, "write its file name")
                blocks[-1][1].append((number, line.strip()))
    entries = []
    for name, lines in blocks:
        with guard:
            entries.append(ImageEntry((name,), name, _faces(name, lines, path)))
    labels = {region.label for entry in entries for region in entry.regions}
    notes = tuple((NO_NUMBER, f"{path}: {name}") for name, lines in blocks if not lines)
    return Content(entries, (FACE,) if labels <= {FACE} else None, notes)


def _faces(name: str, lines: list[tuple[int, str]], path: Path) -> list[Region]:
    """The faces of an image, of which the first line states the number."""
    if not lines:
        return []
    count, faces = fields.as_integer(lines[0][1]), lines[1:]
    if count is None or count < 0:
        what = f"is followed by {fields.short(lines[0][1])}"
        raise DataError("number of faces", path, name, what, "write the number of its faces")
    if count == 0 and len(faces) == 1 and not any(fields.numbers_of_words(faces[0][1].split())):
        return []
    if len(faces) != count:
        what, fix = f"has {len(faces)} lines for {count} faces", "write one line per face"
        raise DataError("number of faces", path, name, what, fix)
    regions = []
    for number, line in faces:
        face = _split(line)
        name = " ".join(face.name) or FACE
        regions.append(Region(f"line {number}", name, face, fields.is_true(face.invalid)))
    return regions


def _split(line: str) -> _Face:
    words = line.split()
    box, rest = words[:_SIDES], words[_SIDES:]
    attributes = rest[:_ATTRIBUTES]
    if len(attributes) < _ATTRIBUTES or not all(map(_is_attribute, attributes)):
        return _Face(line, box, "0", rest)
    in_order = all(map(str.isdecimal, attributes))  # Datumaro's own attributes end with invalid
    return _Face(line, box, attributes[3 if in_order else 5], rest[_ATTRIBUTES:])


def _is_attribute(word: str) -> bool:
    return word.isdecimal() or word in ("-", "True", "False")


def _box(face: _Face, path: Path, where: str, found: set[str]) -> Box | None:
    """The box of a face; None for one without area."""
    numbers = fields.numbers_of_words(face.box)
    # A number behind the box, which is not a class.
    more = bool(face.name) and fields.finite(face.name[0], lenient=True) is not None
    if len(numbers) != _SIDES or None in numbers or more:
        raise DataError("face", path, where, f"is {fields.short(face.line)}", _FIX)
    if face.invalid not in ("0", "1", "-", "True", "False"):
        what = f"invalid is {face.invalid}"
        raise DataError("invalid", path, where, what, "write 0, or 1 for a face that is ignored")
    box = numbers[0], numbers[1], numbers[2], numbers[3]
    if has_area(box):
        return box
    found.add(NO_AREA)
    return None


_WIDERFACE = SplitFileFormat(
    "widerface",
    "WIDER FACE",
    (".txt",),
    _is_widerface,
    _parse,
    _box,
    image_folders=("WIDER_{split}/images", "WIDER_{split}/WIDER_{split}/images"),
)
