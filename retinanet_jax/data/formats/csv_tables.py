"""Tables of boxes: CSV files with a row for each object.

A table has a header with the usual names of the columns for file, class and box, or is one of those
without a header that keras-retinanet, AutoML and makesense.ai write. Without a column of classes
all objects are of one class: that of classes.txt, or `object`. A single column `bbox` has x, y,
width and height, as on Kaggle. Boxes are pixels, except in tables of Open Images and AutoML, whose
boxes are shares of the image's size. The delimiter is a comma, a semicolon or a tab.
"""

import functools
import math
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
from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawObject, RawSplit
from retinanet_jax.data.annotations.split_names import split_of_file
from retinanet_jax.data.data_errors import DataError, Guard
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

ZERO_BOX = "row with a box of zeros, read as image without objects"
NUMBERED = "class given by its number, its name in the list of classes used"
_LARGEST_SHARE = 1.5  # above it, a number is a pixel


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
    table, root, notes = dataset.splits[split], dataset.root, list(dataset.notes)
    columns = table.columns
    bases = (table.path.parent, root, root / "images", root / split, root / "images" / split)
    stated_split = split if len(dataset.splits) > 1 else split_of_file(table.path, root) or ""

    def stated() -> Iterator[str]:
        """The names of the images of all splits in the table."""
        return (row[columns.file] for _, row in rows_of(table) if columns.file < len(row))

    finder = ImageFinder(root, stated_split, bases, stated)
    if columns.class_name is None:
        notes.append((NO_CLASSES, str(table.path)))
    images: dict[str, tuple[str, tuple[int, int] | None, list[RawObject]]] = {}
    for number, row in rows_of(table):
        if columns.split is not None and split_of_row(row, columns.split) != split:
            continue
        with guard:
            where = f"line {number}"
            stated = _cell(row, columns.file, table, where)
            if not stated or "\0" in stated:
                what = f"the image name is {short(stated)}"
                raise DataError("file name", table.path, where, what, "write it")
            path = finder.find(stated, table.path, where)
            place = f"image {short(stated)}"
            _, _, objects = images.setdefault(path, (place, _size(row, columns), []))
            found = _object(row, dataset, table, where, notes)
            objects += [] if found is None else [found]
    notes.extend(finder.notes)
    names = {path: relative_name(path, root) for path in images}
    read = (
        RawImage(
            names[path], Path(path), table.path, tuple(objects), where, size, columns.normalized
        )
        for path, (where, size, objects) in images.items()
    )
    return RawSplit(tuple(read), dataset.class_names, notes=tuple(notes), box_form=columns.form)


def _cell(row: list[str], column: int, table: Table, where: str) -> str:
    if column >= len(row):
        what = f"has {len(row)} columns, but at least {column + 1} are needed"
        raise DataError("row", table.path, where, what, "fill in the missing columns")
    return row[column].strip()


def _size(row: list[str], columns: Columns) -> tuple[int, int] | None:
    if columns.size is None or max(columns.size) >= len(row):
        return None
    height, width = columns.size
    return size(row[height], row[width])


def _object(
    row: list[str],
    dataset: CsvDataset,
    table: Table,
    where: str,
    notes: list[tuple[str, str]],
) -> RawObject | None:
    """The object of a row; None for a row that stands for an image without objects."""
    columns, path = table.columns, table.path
    if columns.short_is_empty and len(row) <= min(columns.class_name, *columns.box):
        return None
    cells = [_cell(row, column, table, where) for column in columns.box]
    if len(cells) == 1:
        cells = re.sub(r"[][(),;]", " ", cells[0]).split()
    name = _cell(row, columns.class_name, table, where) if columns.class_name is not None else ""
    if not any(cells) and not name:
        return None
    box = _box(cells, table, where)
    if columns.zero_is_empty and not any(box):
        notes.append((ZERO_BOX, f"{path}: {where}"))
        return None
    if dataset.display_names and columns.class_name is not None:
        code, name = name, dataset.display_names.get(name, "")
        if not name:
            what, fix = f"class {short(code)} has no name", "add it to class-descriptions"
            raise DataError("class name", path, where, what, fix)
    if columns.class_name is None:
        name = dataset.class_names[0] if len(dataset.class_names or ()) == 1 else ONE_CLASS
    elif (numbered := _name_of(name, dataset.class_names)) is not None:
        notes.append((NUMBERED, f"{path}: {where}"))
        name = numbered
    name = class_name(name, dataset.class_names, path, where)
    crowd = columns.crowd is not None and columns.crowd < len(row)
    crowd = crowd and row[columns.crowd].strip().lower() in ("1", "1.0", "true")
    return RawObject(name, box, where, crowd=crowd)


def _name_of(number: str, names: tuple[str, ...] | None) -> str | None:
    """The name of a class number, from 0, in a list in which no name is itself a number."""
    if not names or not re.fullmatch(r"\d{1,6}(\.0*)?", number) or any(map(is_number, names)):
        return None
    return names[int(float(number))] if float(number) < len(names) else None


def _box(cells: list[str], table: Table, where: str) -> tuple[float, float, float, float]:
    """x, y, width, height."""
    if table.delimiter != ",":
        cells = [cell.replace(",", ".") for cell in cells]  # decimal commas
    numbers = [float(cell) if is_number(cell) else math.nan for cell in cells]
    if len(numbers) != 4 or not math.isfinite(sum(numbers)):
        what = f"the box is {short(' '.join(cells))}"
        raise DataError("box", table.path, where, what, "write four numbers")
    if table.columns.normalized and max(map(abs, numbers)) > _LARGEST_SHARE:
        what = f"the box is {short(' '.join(cells))}, which are not fractions of the image size"
        fix = "divide x by the image's width and y by its height"
        raise DataError("pixels instead of fractions", table.path, where, what, fix)
    x, y, right, bottom = numbers
    if table.columns.form == "corners":
        return x, y, right - x, bottom - y
    if table.columns.form == "center":
        return x - right / 2, y - bottom / 2, right, bottom
    return x, y, right, bottom
