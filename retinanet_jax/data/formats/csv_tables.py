"""Tables of boxes: CSV files with a row for each object.

A table has a header with the usual names of the columns for file, class and box, or is one of those
without a header that keras-retinanet, AutoML and makesense.ai write. Without a column of classes
all objects are of one class: that of classes.txt, or `object`. A single column `bbox` has x, y,
width and height, as on Kaggle. Boxes are pixels, except in tables of Open Images and AutoML and in
columns such as `xmin_norm`, which are shares of the image's size. Of points x1, y1, x2, y2, x3, ...
and rotated boxes the bounding boxes are read. The delimiter is a comma, a semicolon or a tab.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations.annotation_fields import (
    NO_CLASSES,
    ONE_CLASS,
    class_name,
    short,
    size,
)
from retinanet_jax.data.annotations.folder_files import relative_name
from retinanet_jax.data.annotations.ignore_marks import is_ignored
from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawObject, RawSplit
from retinanet_jax.data.annotations.split_names import split_of_file
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.csv_boxes import (
    Rotation,
    box_cells,
    cell_of,
    read_box,
    read_rotation,
)
from retinanet_jax.data.formats.csv_columns import Columns, is_number
from retinanet_jax.data.formats.csv_files import (
    Table,
    display_names,
    find_tables,
    listed_class_names,
    rows_of,
    split_of_row,
    tables_by_split,
)

EMPTY_BOX = "row with a class that never has a box, read as image without objects"
ZERO_BOX = "row with a box of zeros, read as image without objects"
NUMBERED = "class given by its number, its name in the list of classes used"


class CsvDataset(NamedTuple):
    """The tables of a folder.

    splits: table of each split; splits share a table if it has a column of splits.
    class_names: class names in the order of the labels; None if no file lists them.
    display_names: names of codes in the class column; empty if no file has them.
    notes: (reason, where) pairs.
    """

    root: Path
    splits: dict[str, Table]
    class_names: tuple[str, ...] | None
    display_names: dict[str, str]
    notes: tuple[tuple[str, str], ...]


class _Found(NamedTuple):
    """What was found in the rows of a table beside objects.

    notes: (reason, where) pairs.
    boxed: classes of rows with a box, as written.
    boxless: (line, class) of rows with a class but without a box.
    """

    notes: list[tuple[str, str]]
    boxed: set[str]
    boxless: list[tuple[str, str]]


def find(root: Path) -> Layout | None:
    """Returns the layout of the tables in a folder, or of one table.

    Raises:
      DataError: several tables fit, or a list of class names is broken.
    """
    folder = root if root.is_dir() else root.parent
    tables = find_tables(root)
    if not tables:
        return None
    splits, notes = tables_by_split(tables, folder)
    folders = dict.fromkeys([folder, *(table.path.parent for table in tables)])
    names, display = listed_class_names(folders), display_names(folders)
    dataset = CsvDataset(folder, splits, names, display, notes)
    tool = next(iter(splits.values())).columns.tool
    return Layout("csv", tool, tuple(splits), functools.partial(read_split, dataset), (folder,))


def read_split(dataset: CsvDataset, split: str, guard: Guard) -> RawSplit:
    """Returns the images of a split with their objects, in row order; see raw.Layout."""
    table, root = dataset.splits[split], dataset.root
    columns, found = table.columns, _Found(list(dataset.notes), set(), [])
    if columns.problem is not None:
        raise DataError("ambiguous columns", table.path, "", *columns.problem)
    rotation = read_rotation(table)
    finder = _finder(dataset, split)
    if columns.class_name is None:
        found.notes.append((NO_CLASSES, str(table.path)))
    images: dict[str, tuple[str, tuple[int, int] | None, list[RawObject]]] = {}
    for number, row in rows_of(table):
        if columns.split is not None and split_of_row(row, columns.split) != split:
            continue
        with guard:
            where = f"line {number}"
            stated = cell_of(row, columns.file, table, where)
            if not stated or "\0" in stated:
                what = f"the image name is {short(stated)}"
                raise DataError("file name", table.path, where, what, "write it")
            path = finder.find(stated, table.path, where)
            place = f"image {short(stated)}"
            _, _, objects = images.setdefault(path, (place, _size(row, columns), []))
            one = _object(row, dataset, table, rotation, where, found)
            objects += [] if one is None else [one]
    _check_boxless(found, table, guard)
    found.notes.extend(finder.notes)
    names = {path: relative_name(path, root) for path in images}
    read = (
        RawImage(
            names[path], Path(path), table.path, tuple(objects), where, size, columns.normalized
        )
        for path, (where, size, objects) in images.items()
    )
    form = "corners" if columns.form == "points" else columns.form
    return RawSplit(tuple(read), dataset.class_names, notes=tuple(found.notes), box_form=form)


def _finder(dataset: CsvDataset, split: str) -> ImageFinder:
    table, root = dataset.splits[split], dataset.root
    column = table.columns.file
    bases = (table.path.parent, root, root / "images", root / split, root / "images" / split)
    stated_split = split if len(dataset.splits) > 1 else split_of_file(table.path, root) or ""

    def named() -> Iterator[str]:
        """The names of the images of all splits in the table."""
        return (row[column] for _, row in rows_of(table) if column < len(row))

    return ImageFinder(root, stated_split, bases, named)


def _size(row: list[str], columns: Columns) -> tuple[int, int] | None:
    if columns.size is None or max(columns.size) >= len(row):
        return None
    height, width = columns.size
    return size(row[height], row[width])


def _object(
    row: list[str],
    dataset: CsvDataset,
    table: Table,
    rotation: Rotation | None,
    where: str,
    found: _Found,
) -> RawObject | None:
    """The object of a row; None for a row that stands for an image without objects."""
    columns, path = table.columns, table.path
    if columns.short_is_empty and len(row) <= min(columns.class_name, *columns.box):
        return None
    cells = box_cells(row, table, where)
    name = ""
    if columns.class_name is not None:
        name = cell_of(row, columns.class_name, table, where)
    if not cells:
        if name:
            found.boxless.append((where, name))
        return None
    box = read_box(cells, row, table, rotation, where, found.notes)
    found.boxed.add(name)
    if columns.zero_is_empty and not any(box):
        found.notes.append((ZERO_BOX, f"{path}: {where}"))
        return None
    if dataset.display_names and columns.class_name is not None:
        code, name = name, dataset.display_names.get(name, "")
        if not name:
            what, fix = f"class {short(code)} has no name", "add it to class-descriptions"
            raise DataError("class name", path, where, what, fix)
    if columns.class_name is None:
        name = dataset.class_names[0] if len(dataset.class_names or ()) == 1 else ONE_CLASS
    elif (numbered := _name_of(name, dataset.class_names)) is not None:
        found.notes.append((NUMBERED, f"{path}: {where}"))
        name = numbered
    name = class_name(name, dataset.class_names, path, where)
    marks = {mark: row[column] for mark, column in columns.marks if column < len(row)}
    return RawObject(name, box, where, crowd=is_ignored(marks, path, where))


def _check_boxless(found: _Found, table: Table, guard: Guard) -> None:
    """Counts rows without a box whose class has none in any row, such as 'No finding'.

    Errors of the other ones, whose box is missing, are for the guard.
    """
    for where, name in found.boxless:
        with guard:
            if name in found.boxed:
                what = f"has no box for the class {short(name)}, which has boxes in other rows"
                fix = "write the box, or leave out the row or its class"
                raise DataError("box", table.path, where, what, fix)
            found.notes.append((EMPTY_BOX, f"{table.path}: {where}"))


def _name_of(number: str, names: tuple[str, ...] | None) -> str | None:
    """The name of a class number, from 0, in a list in which no name is itself a number."""
    if not names or not re.fullmatch(r"\d{1,6}(\.0*)?", number) or any(map(is_number, names)):
        return None
    return names[int(float(number))] if float(number) < len(names) else None
