"""What the modules of layouts with one annotation file per split define: see split_files.py.

A module parses its file into the entries below and computes the box of a shape.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.annotations.outlines import Box
from retinanet_jax.data.data_errors import Guard

OUTLINE = "polygons, ellipses, masks or rotated boxes, bounding boxes used"
REPLACED = "images that also are in the file of another job, the latest boxes used"
NO_BOX = "points and lines, left out"
LOST = "images of a split that was not found, left out"


class Region(NamedTuple):
    """A shape of an image, with unchecked `label` and `shape` as in the file.

    crowd: see raw.RawObject.
    """

    where: str
    label: Any
    shape: Any
    crowd: bool = False


class ImageEntry(NamedTuple):
    """An image of an annotation file.

    names: unchecked names as stated, and variants; the first that exists is used. Without names,
        the image is left out, and only its notes are reported.
    where: the entry in the file, for messages.
    regions: shapes of the image.
    size: annotated (height, width) in pixels.
    split: split of the image, if one file has several splits.
    notes: reasons as in RawSplit.notes.
    history: the jobs that annotated the image, each adjusting the one before, where a file says so.
        The entry of another file whose history is the beginning of it is out of date.
    """

    names: Sequence[Any]
    where: str
    regions: Sequence[Region]
    size: tuple[int, int] | None = None
    split: str | None = None
    notes: Sequence[str] = ()
    history: Sequence[Any] = ()


class Content(NamedTuple):
    """The content of an annotation file; `class_names` None uses the names that occur."""

    entries: list[ImageEntry]
    class_names: tuple[str, ...] | None = None
    notes: tuple[tuple[str, str], ...] = ()


class SplitFileFormat(NamedTuple):
    """A layout with one annotation file per split.

    name, tool: see raw.Layout.
    suffixes: suffixes of the annotation files.
    is_one: whether a file is of this format, by its first bytes.
    parse: returns the content of a file; the guard collects errors of single entries.
    box: returns x, y, width, height around a shape, or None for a shape without a box. Arguments
        are the shape, the file and entry for messages, and a set for notes.
    inner_splits: returns the names of the splits in a file; none if the file is one split.
    normalized: whether boxes are fractions of the image size.
    image_folders: more folders of the images of a split, with '{split}' for its name, relative to
        the dataset's folder.
    box_form: how the files write a box, see RawSplit.
    """

    name: str
    tool: str
    suffixes: tuple[str, ...]
    is_one: Callable[[Path], bool]
    parse: Callable[[Path, Guard], Content]
    box: Callable[[Any, Path, str, set[str]], Box | None]
    inner_splits: Callable[[Path], Sequence[str]] = lambda path: ()
    normalized: bool = False
    image_folders: tuple[str, ...] = ()
    box_form: str = "size"
