"""Finds the columns of image, class and box, by the header or the first rows."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from retinanet_jax.data.annotations.folder_files import suffix_of
from retinanet_jax.data.annotations.ignore_marks import is_mark
from retinanet_jax.data.formats.csv_header import Angle, find_box, plain_name
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

# Names of columns in lower case without _ and the like, the most telling first.
_FILE = (
    *("filename", "imagefilename", "filepath", "imagepath", "imgpath", "imagename", "imgname"),
    *("imagefile", "imageid", "image", "img", "file", "path"),
)
_CLASS = (
    *("class", "classname", "label", "labelname", "category", "categoryname", "objectname"),
    *("name", "species", "classid", "labelid", "categoryid", "annotationtag"),
)
_SPLIT = ("split", "set", "subset", "mluse")
AUTOML_SETS = ("train", "training", "validation", "validate", "test", "unassigned", "")


class Columns(NamedTuple):
    """The indices of the columns; None for columns that a table lacks.

    class_name: None for a table of one class.
    box, form, size, angle, problem: see csv_header.BoxColumns.
    marks: name and column of each mark of ignored objects.
    normalized: whether the boxes are shares of the image's size.
    has_header: whether the first row is a header.
    zero_is_empty: whether a box of zeros means an image without objects.
    short_is_empty: whether a row that ends before its class and box means such an image.
    """

    tool: str
    file: int
    class_name: int | None
    box: tuple[int, ...]
    form: str = "corners"
    size: tuple[int, ...] | None = None
    marks: tuple[tuple[str, int], ...] = ()
    split: int | None = None
    normalized: bool = False
    has_header: bool = True
    zero_is_empty: bool = False
    short_is_empty: bool = False
    angle: Angle | None = None
    problem: tuple[str, str] | None = None


def recognize(rows: Sequence[Sequence[str]]) -> Columns | None:
    """Returns the columns of a table by its first rows; None for a table without boxes."""
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return None
    return _automl(rows) or _by_header(rows) or _without_header(rows)


def _by_header(rows: Sequence[Sequence[str]]) -> Columns | None:
    header = rows[0]
    names = list(map(plain_name, header))
    file, class_name, box = _first(names, _FILE), _first(names, _CLASS), find_box(header, rows[1:])
    if file is None or box is None:
        return None
    marks = tuple((name, column) for column, name in enumerate(header) if is_mark(name))
    columns = Columns("CSV", file, class_name, box.columns, box.form, box.size, marks)
    columns = columns._replace(
        split=_first(names, _SPLIT),
        normalized=box.normalized,
        angle=box.angle,
        problem=box.problem,
    )
    if {"imageid", "labelname", "xmin", "isgroupof"} <= set(names):
        return columns._replace(tool="CSV of Open Images", normalized=True)
    if {"imagepath", "label", "xmin"} <= set(names):
        return columns._replace(tool="CSV as DeepForest reads it", zero_is_empty=True)
    return columns


def _first(names: Sequence[str], wanted: Iterable[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _automl(rows: Sequence[Sequence[str]]) -> Columns | None:
    """AutoML's: set, path, label and four corners, two of which may be empty; with or without set.

    Corners go around the box, so that the first and the third are opposite.
    """
    first = [cell.strip().lower() for cell in rows[0]]
    columns = Columns("CSV of AutoML", 1, 2, (3, 4, 7, 8), split=0, normalized=True)
    columns = columns._replace(short_is_empty=True)
    if first[:3] == ["set", "path", "label"] and len(first) >= 9:
        return columns
    columns = columns._replace(has_header=False)
    for start, shifted in ((1, columns), (0, _without_set(columns))):
        # A list of images alone is no table of boxes.
        if all(_is_automl_row(row, start) for row in rows) and max(map(len, rows)) > 8:
            return shifted
    return None


def _without_set(columns: Columns) -> Columns:
    box = tuple(column - 1 for column in columns.box)
    return columns._replace(file=0, class_name=1, box=box, split=None)


def _is_automl_row(row: Sequence[str], start: int) -> bool:
    cells = [cell.strip() for cell in row[start:]]
    if not 1 <= len(cells) <= 10 or (start and row[0].strip().lower() not in AUTOML_SETS):
        return False
    corners = [cell for cell in cells[2:] if cell]
    return _is_image(cells[0]) and len(corners) in (0, 4, 8) and all(map(is_number, corners))


def _without_header(rows: Sequence[Sequence[str]]) -> Columns | None:
    """keras-retinanet's: path, x1, y1, x2, y2, class; all but the path empty without objects.
    makesense.ai's: class, x, y, width, height, image, width and height of the image.
    """
    cells = [[cell.strip() for cell in row] for row in rows]
    if all(len(row) == 6 and _is_image(row[0]) for row in cells) and all(
        all(map(is_number, row[1:5])) or not any(row[1:]) for row in cells
    ):
        return Columns("CSV as keras-retinanet reads it", 0, 5, (1, 2, 3, 4), has_header=False)
    if all(
        len(row) == 8 and _is_image(row[5]) and all(map(is_number, [*row[1:5], *row[6:]]))
        for row in cells
    ):
        columns = Columns("CSV of makesense.ai", 5, 0, (1, 2, 3, 4), "size", has_header=False)
        return columns._replace(size=(7, 6))
    return None


def _is_image(name: str) -> bool:
    return suffix_of(name) in IMAGE_SUFFIXES


def is_number(text: str) -> bool:
    """Returns whether a cell is a decimal number."""
    return re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", text) is not None
