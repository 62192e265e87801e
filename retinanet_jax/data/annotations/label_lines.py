"""Reads layouts with one text file per image and one line per object, such as KITTI's.

A module of such a layout defines how its files begin and what a line means. Finding the files and
their images is shared.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations.folder_files import (
    decode_text,
    read_head,
    read_many,
    relative_name,
    text_encoding,
)
from retinanet_jax.data.annotations.folder_parts import (
    ImageNames,
    Kind,
    Part,
    PartsDataset,
    annotation_files,
    left_out,
)
from retinanet_jax.data.annotations.outlines import Box
from retinanet_jax.data.annotations.raw import RawImage, RawObject, RawSplit
from retinanet_jax.data.data_errors import DataError, Guard

LINE_REPEATED = "line repeated, read once"
NO_AREA = "boxes without area, left out"
SUFFIX = ".txt"
_HEAD = 1 << 12


class LineFormat(NamedTuple):
    """What a layout defines about its files.

    folders: names of the annotation folder, beside the image folder.
    begins: whether the first lines of a file are of this format.
    parse: returns the object of a line, or None for a line without one. Arguments are the line, the
        known class names or None, the file and line for messages, and a set for notes.
    image_suffix: suffix with which errors name the missing image of a label file.
    box_form: see RawSplit.
    leaves_out_empty: whether boxes without area are left out and noted instead of raising an error:
        the official release of the format has some.
    """

    folders: Sequence[str]
    begins: Callable[[list[str]], bool]
    parse: Callable[[str, tuple[str, ...] | None, Path, str, set[str]], RawObject | None]
    image_suffix: str
    box_form: str = "size"
    leaves_out_empty: bool = False


def kind_of(form: LineFormat) -> Kind:
    """Returns which files are annotations, for find_parts."""
    return Kind(SUFFIX, lambda path: _begins(form, read_head(path, _HEAD)), form.folders)


def _begins(form: LineFormat, data: bytes) -> bool:
    text = data[:_HEAD].decode(text_encoding(data), "ignore")
    return form.begins([line for line in text.splitlines() if line.strip()])


def read_split(form: LineFormat, dataset: PartsDataset, split: str, guard: Guard) -> RawSplit:
    """Returns the images of a split with their objects; see raw.Layout."""
    notes = left_out(dataset.root, dataset.splits.values(), kind_of(form))
    found = read_part(form, dataset, dataset.splits[split], guard)
    return found._replace(notes=(*notes, *found.notes))


def read_part(form: LineFormat, dataset: PartsDataset, part: Part, guard: Guard) -> RawSplit:
    """Returns the images of a part of a dataset with their objects."""
    files = annotation_files(part, SUFFIX)
    names = ImageNames(part.images, files.keys(), part.apart)
    images: list[RawImage] = []
    notes: list[tuple[str, str]] = []
    for (stem, file), data in zip(files.items(), read_many(list(files.values())), strict=True):
        with guard:
            if isinstance(data, DataError):
                raise data
            path = Path(file)
            image = names.only(stem, path)
            if image is None and not _begins(form, data):
                continue  # a list of classes or a note
            image = image or names.path(stem + form.image_suffix)
            lines = decode_text(data, path).splitlines()
            objects = _objects(form, lines, path, dataset.class_names, guard, notes)
            name = relative_name(image, dataset.root)
            images.append(RawImage(name, Path(image), path, objects))
    return RawSplit(tuple(images), dataset.class_names, notes=tuple(notes), box_form=form.box_form)


def _objects(
    form: LineFormat,
    lines: list[str],
    path: Path,
    class_names: tuple[str, ...] | None,
    guard: Guard,
    notes: list[tuple[str, str]],
) -> tuple[RawObject, ...]:
    objects, found = [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        with guard:
            where = f"line {number}"
            one = form.parse(line, class_names, path, where, found)
            if one is None:
                continue
            if form.leaves_out_empty and not has_area(one.box):
                notes.append((NO_AREA, f"{path}: {where}"))
                continue
            objects.append(one)
    notes.extend((reason, str(path)) for reason in sorted(found))
    return tuple(objects)


def has_area(box: Box) -> bool:
    """Returns whether both sides of a box are positive."""
    return min(box[2:]) > 0
