"""The box of a row of a table: four numbers, points around the object, or one cell with all."""

import ast
import json
import math
import re
from typing import Any, NamedTuple

from retinanet_jax.data.annotations.annotation_fields import (
    UNSTATED,
    check_fractions,
    finite,
    short,
)
from retinanet_jax.data.annotations.folder_files import json_or_error
from retinanet_jax.data.annotations.outlines import ROTATED, Box, around_points, around_rotated
from retinanet_jax.data.annotations.split_content import OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats.csv_columns import is_number
from retinanet_jax.data.formats.csv_files import Table, rows_of
from retinanet_jax.data.formats.csv_header import find_box


class Rotation(NamedTuple):
    """The column of the angles, and the factor from its unit to radians."""

    column: int
    factor: float


def read_rotation(table: Table) -> Rotation | None:
    """Returns how the boxes of a table are rotated; None where they are upright.

    Raises:
      DataError: the unit of the angles or the centre of the rotation is unclear.
    """
    angle, columns = table.columns.angle, table.columns
    if angle is None or columns.form == "points":
        return None
    rows = (row for _, row in rows_of(table) if angle.column < len(row))
    numbers = [finite(_decimal(row[angle.column], table), lenient=True) for row in rows]
    largest = max((abs(number) for number in numbers if number is not None), default=0.0)
    if not largest:
        return None
    upright = f"rename {angle.name!r} if the boxes are upright"
    if columns.form != "center" or columns.normalized or len(columns.box) != 4:
        what = f"has angles in {angle.name!r}, but not the centres of the boxes in pixels"
        fix = f"write x_center, y_center, width and height in pixels, or {upright}"
        raise DataError("rotated boxes", table.path, "", what, fix)
    if not angle.unit and largest <= 2 * math.pi:
        what = f"has angles up to {largest:g} in {angle.name!r}, which may be degrees or radians"
        fix = f"rename it to angle_degrees or angle_radians, or {upright}"
        raise DataError("rotated boxes", table.path, "", what, fix)
    return Rotation(angle.column, 1.0 if angle.unit == "radians" else math.pi / 180)


def cell_of(row: list[str], column: int, table: Table, where: str) -> str:
    """Returns the text of a cell.

    Raises:
      DataError: the row is too short.
    """
    if column >= len(row):
        what = f"has {len(row)} columns, but at least {column + 1} are needed"
        raise DataError("row", table.path, where, what, "fill in the missing columns")
    return row[column].strip()


def box_cells(row: list[str], table: Table, where: str) -> list[str]:
    """Returns the cells of the box of a row; none if all of them are empty."""
    cells = [cell_of(row, column, table, where) for column in table.columns.box]
    return [] if all(cell.lower() in UNSTATED for cell in cells) else cells


def read_box(
    cells: list[str],
    row: list[str],
    table: Table,
    rotation: Rotation | None,
    where: str,
    found: list[tuple[str, str]],
) -> Box:
    """Returns x, y, width, height of a box by its cells; `found` counts changed ones."""
    form = table.columns.form
    if form == "points":
        found.append((OUTLINE, f"{table.path}: {where}"))
        xs, ys = (_numbers(_without_gaps(cells, side), table, where) for side in (0, 1))
        return around_points(xs, ys)
    if len(table.columns.box) == 1:
        cells, form = _in_one_cell(cells[0], table, where)
    numbers = _numbers(cells, table, where)
    if len(numbers) != 4:
        what = f"the box is {short(' '.join(cells))}"
        raise DataError("box", table.path, where, what, "write four numbers")
    if table.columns.normalized:
        check_fractions(numbers, table.path, where)
    x, y, right, bottom = numbers
    if form == "corners":
        return x, y, right - x, bottom - y
    if form == "size":
        return x, y, right, bottom
    angle = _radians(row, table, rotation, where)
    if angle:
        found.append((ROTATED, f"{table.path}: {where}"))
        return around_rotated(x, y, right, bottom, angle)
    return x - right / 2, y - bottom / 2, right, bottom


def _without_gaps(cells: list[str], side: int) -> list[str]:
    """The cells of x (0) or y (1); pairs of empty cells are points that an object lacks."""
    pairs = zip(cells[::2], cells[1::2], strict=True)
    return [pair[side] for pair in pairs if any(cell.lower() not in UNSTATED for cell in pair)]


def _in_one_cell(cell: str, table: Table, where: str) -> tuple[list[str], str]:
    """The four numbers of a cell as text, and their form."""
    if not cell.startswith("{"):
        return re.sub(r"[][(),;]", " ", cell).split(), table.columns.form
    content = literal(cell)
    values = list(content.values()) if isinstance(content, dict) else []
    found = find_box(list(map(str, content))) if values else None
    is_rotated = found is not None and found.angle and values[found.angle.column]
    if found is None or found.problem or found.normalized or len(found.columns) != 4 or is_rotated:
        what, fix = f"the box is {short(cell)}", "write x, y, width and height in pixels"
        raise DataError("box", table.path, where, what, fix)
    return [str(values[column]) for column in found.columns], found.form


def literal(text: str) -> Any:
    """Returns the content of JSON text or of a Python literal, in which tuples become lists.

    Returns the error of reading it as JSON if it is neither.
    """
    content = json_or_error(text)
    if isinstance(content, Exception):
        try:
            return json.loads(json.dumps(ast.literal_eval(text)))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return content
    return content


def _radians(row: list[str], table: Table, rotation: Rotation | None, where: str) -> float:
    if rotation is None:
        return 0.0
    cell = cell_of(row, rotation.column, table, where)
    number = 0.0 if cell.lower() in UNSTATED else finite(_decimal(cell, table), lenient=True)
    if number is None:
        raise DataError("angle", table.path, where, f"the angle is {short(cell)}", "write a number")
    return number * rotation.factor


def _numbers(cells: list[str], table: Table, where: str) -> list[float]:
    cells = [_decimal(cell, table) for cell in cells]
    numbers = [float(cell) if is_number(cell) else math.nan for cell in cells]
    if not math.isfinite(sum(numbers)):
        what = f"the box is {short(' '.join(cells))}"
        raise DataError("box", table.path, where, what, "write numbers")
    return numbers


def _decimal(cell: str, table: Table) -> str:
    """A cell whose decimal comma, where commas do not separate cells, is a point."""
    return cell if table.delimiter == "," else cell.replace(",", ".")
