"""Finds the tables of boxes in a folder, their splits, and the class lists beside them."""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from retinanet_jax.data.annotations.annotation_fields import short
from retinanet_jax.data.annotations.class_lists import checked_class_names, find_class_names
from retinanet_jax.data.annotations.folder_files import (
    annotation_folders,
    list_folder,
    read_head,
    text_encoding,
)
from retinanet_jax.data.annotations.split_names import find_split, is_split_name, split_of_file
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats.csv_columns import Columns, recognize

UNNAMED = "CSV file whose name contains no split, left out"
_DELIMITERS = ",;\t|"
_HEAD, _ROWS = 1 << 16, 50  # bytes and rows that a table is recognised by
_FOLDERS = ("annotations", "labels", "csv", "csv_folder")
_CLASS_TABLES = ("classes.csv", "class_mapping.csv", "class_map.csv", "labels.csv")


class Table(NamedTuple):
    """A CSV file with boxes."""

    path: Path
    delimiter: str
    columns: Columns


def find_tables(root: Path) -> list[Table]:
    """Returns the tables with boxes in a folder and its folders of splits, or in one file.

    Folders of annotations are searched, too.
    """
    if root.is_file():
        return [table for table in [_table(root)] if table]
    names = [n for n in list_folder(root).folders if is_split_name(n) or n.lower() in _FOLDERS]
    usual = [root, *(root / name for name in names)]
    return _tables_in(usual) or _tables_in(annotation_folders(root))


def _tables_in(folders: list[Path]) -> list[Table]:
    paths = [f / name for f in folders for name in list_folder(f).with_suffix(".csv", ".tsv")]
    return [table for table in map(_table, paths) if table]


def _table(path: Path) -> Table | None:
    """A file as a table of boxes; None for any other file."""
    head = read_head(path, _HEAD)
    text = head.decode(text_encoding(head), "ignore")
    if len(head) == _HEAD:
        text = text[: text.rfind("\n") + 1] or text
    for delimiter in _DELIMITERS:
        try:
            rows = _numbered(io.StringIO(text, newline=""), delimiter)
            columns = recognize([row for _, row in itertools.islice(rows, _ROWS)])
        except csv.Error:
            continue
        if columns is not None:
            return Table(path, delimiter, columns)
    return None


def tables_by_split(
    tables: list[Table], root: Path
) -> tuple[dict[str, Table], tuple[tuple[str, str], ...]]:
    """Returns tables by the split that they or their folder are named after, and notes.

    One table alone is divided by its column of splits, if it has one; else it is 'train'. One
    without the name of a split is 'train' beside those of other splits.
    """
    if len(tables) == 1:
        if splits := _splits_in(tables[0]):
            return dict.fromkeys(splits, tables[0]), ()
        tables = [_undivided(tables[0])]
        return {split_of_file(tables[0].path, root) or "train": tables[0]}, ()
    named: dict[str, Table] = {}
    unnamed = []
    for table in map(_undivided, tables):
        split = split_of_file(table.path, root)
        if split in named:
            what = f"both {named[split].path.name} and {table.path.name} have boxes for {split!r}"
            raise DataError("ambiguous table", root, "", what, "set data.root to one of the files")
        if split is None:
            unnamed.append(table)
        else:
            named[split] = table
    if find_split("train", list(named)) is None and unnamed:
        return {"train": _only(unnamed, root), **named}, ()
    return named, tuple((UNNAMED, str(table.path)) for table in unnamed)


def _only(tables: list[Table], root: Path) -> Table:
    if len(tables) > 1:
        names = ", ".join(table.path.name for table in tables)
        what = f"has several tables of boxes whose names contain no split: {names}"
        fix = "name them after their splits, such as train.csv, or set data.root to one of them"
        raise DataError("ambiguous table", root, "", what, fix)
    return tables[0]


def _splits_in(table: Table) -> list[str]:
    """The values in the column of splits; none where it is not of splits.

    Raises:
      DataError: only some of the values are names of splits.
    """
    if (column := table.columns.split) is None:
        return []
    lines: dict[str, int] = {}
    for number, row in rows_of(table):
        lines.setdefault(split_of_row(row, column, unassigned=""), number)
    named = [value for value in lines if is_split_name(value)]
    others = [value for value in lines if value and value not in named]
    if named and others:
        where = f"line {lines[others[0]]}"
        what = f"the split is {short(others[0])}, but {short(named[0])} in line {lines[named[0]]}"
        fix = "write train, val or test, or rename the column if it does not state splits"
        raise DataError("split", table.path, where, what, fix)
    return [] if others else list(dict.fromkeys(value or "train" for value in lines))


def _undivided(table: Table) -> Table:
    return table._replace(columns=table.columns._replace(split=None))


def split_of_row(row: list[str], column: int, unassigned: str = "train") -> str:
    """Returns the split of a row; a row without one is 'train', while AutoML would assign one."""
    value = row[column].strip().lower() if column < len(row) else ""
    return value if value not in ("", "unassigned") else unassigned


def rows_of(table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of the line, cells) of the rows below the header.

    Raises:
      DataError: the file cannot be read or is not a table.
    """
    encoding = text_encoding(read_head(table.path, 4))
    try:
        with table.path.open(encoding=encoding, newline="") as file:
            yield from itertools.islice(
                _numbered(file, table.delimiter), int(table.columns.has_header), None
            )
    except (OSError, UnicodeError, csv.Error) as error:
        what = f"cannot be read as CSV in {encoding} ({error})"
        raise DataError("CSV file", table.path, "", what, "save it as CSV in UTF-8") from error


def _numbered(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, cells) of the rows with content, without Excel's first line 'sep=;'."""
    reader = csv.reader(file, delimiter=delimiter)
    for row in reader:
        is_separator = reader.line_num == 1 and re.fullmatch(r"sep=.?", "".join(row).strip())
        if not is_separator and any(cell.strip() for cell in row):
            yield reader.line_num, row


def listed_class_names(folders: dict[Path, None]) -> tuple[str, ...] | None:
    """Returns the class names in classes.csv (name, number; keras-retinanet) or in classes.txt."""
    for folder in folders:
        for path in (folder / name for name in _CLASS_TABLES):
            if path.is_file() and (names := _class_table(path)):
                return names
    return find_class_names(folders)


def _class_table(path: Path) -> tuple[str, ...] | None:
    columns = Columns("", 0, 0, (), has_header=False)
    rows = [[cell.strip() for cell in row] for _, row in rows_of(Table(path, ",", columns))]
    if not rows or not all(len(row) == 2 and re.fullmatch(r"\d{1,6}", row[1]) for row in rows):
        return None
    numbers = [int(row[1]) for row in rows]
    if sorted(numbers) != list(range(len(rows))):
        fix = "number the classes from 0, each once"
        raise DataError("class names", path, "", f"numbers them {short(numbers)}", fix)
    by_number = dict(zip(numbers, rows, strict=True))
    return checked_class_names([by_number[n][0] for n in range(len(rows))], path)


def display_names(folders: dict[Path, None]) -> dict[str, str]:
    """Returns names by Open Images code (/m/01g317), from class-descriptions-boxable.csv."""
    for folder in folders:
        for name in list_folder(folder).with_suffix(".csv"):
            if "class-descriptions" in name:
                table = Table(folder / name, ",", Columns("", 0, 0, (), has_header=False))
                rows = [row for _, row in rows_of(table)]
                return {row[0].strip(): row[1].strip() for row in rows if len(row) == 2}
    return {}
