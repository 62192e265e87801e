"""Finds the columns of the box and of the image's size by the names in a header.

A name may state that it is of the box (bbox_width), of the image (image_width) or in fractions of
the image's size (x_norm). Plain widths and heights may be of either: where a table has two pairs of
them, its rows show which is which, since no box is larger than its image.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from retinanet_jax.data.annotations.annotation_fields import finite

# Names in lower case without _ and the like; the most telling first.
_CORNERS = (
    *("xmin ymin xmax ymax", "left top right bottom", "xtl ytl xbr ybr", "minx miny maxx maxy"),
    *("startx starty endx endy", "xstart ystart xend yend", "xleft ytop xright ybottom"),
    *("topleftx toplefty bottomrightx bottomrighty",),
    *("upperleftcornerx upperleftcornery lowerrightcornerx lowerrightcornery",),
)
_NUMBERED_CORNER = ("x1 y1", "x0 y0")
_CORNER = ("left top", "xmin ymin", "minx miny", "xtl ytl", "topleftx toplefty", "x y")
_CENTERS = (
    *("xcenter ycenter", "centerx centery", "xcentre ycentre", "centrex centrey", "cx cy", "xc yc"),
)
_SIDES = ("w h", "width height")
_WORDS = sorted({w for group in (*_CORNERS, *_CORNER, *_CENTERS, *_SIDES) for w in group.split()})
_BOX, _IMAGE = "bbox|boundingbox|bndbox|box|bb|roi|rectangle|rect", "image|img|im|picture|photo"
_UNIT = "normalized|normalised|norm|relative|rel|pixels|pixel|px"
_NAME = re.compile(
    rf"({_UNIT})?({_BOX}|{_IMAGE})?({'|'.join(_WORDS)}|[xy]\d\d?)({_BOX}|{_IMAGE})?({_UNIT})?"
)
_ANGLE = re.compile(
    rf"(?:{_BOX})?(?:angle|theta|rotation|rotationangle|rotangle|rot)(deg|degrees?|rad|radians?)?"
)
_ONE_CELL = re.compile(r"(?:bbox|boundingbox)(xyxy|ltrb|xywh|ltwh|cxcywh)?")
_FORMS = {"xyxy": "corners", "ltrb": "corners", "cxcywh": "center"}

Pair = tuple[int, ...]


class Angle(NamedTuple):
    """A column of angles; `unit` is 'degrees', 'radians' or, if its name does not state it, ''."""

    column: int
    name: str
    unit: str


class BoxColumns(NamedTuple):
    """The columns of a box.

    columns: four columns, or pairs of x and y for points, or one whose cells have all numbers.
    form: 'corners' x1, y1, x2, y2; 'size' x, y, width, height; 'center' with x, y of the centre;
        'points' x1, y1, x2, y2, x3, ... around the object.
    size: columns of the image's height and width.
    normalized: whether the boxes are fractions of the image's size.
    angle: column of the rotation.
    problem: what is ambiguous, and how to fix it.
    """

    columns: Pair
    form: str
    size: Pair | None = None
    normalized: bool = False
    angle: Angle | None = None
    problem: tuple[str, str] | None = None


class _Name(NamedTuple):
    """The meaning of a name: `of` is 'box', 'image' or ''."""

    word: str
    of: str
    in_shares: bool


def plain_name(name: str) -> str:
    """Returns the name of a column in lower case without _ and the like."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_box(header: Sequence[str], rows: Sequence[Sequence[str]] = ()) -> BoxColumns | None:
    """Returns the columns of the box; None for a header without a box.

    Args:
      rows: first rows below the header, which show whose width and height a table has.
    """
    for in_shares in (False, True):
        found = _Header(header, rows, in_shares).find()
        if found is not None:
            return found._replace(normalized=in_shares, angle=_angle(header))
    cells = [(place, _ONE_CELL.fullmatch(plain_name(name))) for place, name in enumerate(header)]
    named = [(match[1], place) for place, match in cells if match]
    if not named:
        return None
    form, place = max(named, key=lambda one: one[0] is not None)  # one that states its form
    return BoxColumns((place,), _FORMS.get(form, "size"), angle=_angle(header))


def _angle(header: Sequence[str]) -> Angle | None:
    for column, name in enumerate(header):
        if match := _ANGLE.fullmatch(plain_name(name)):
            unit = match[1] or ""
            return Angle(column, name, {"d": "degrees", "r": "radians"}.get(unit[:1], ""))
    return None


class _Header:
    """The meanings of the names in a header; only boxes in fractions, or only others, are found."""

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]], in_shares: bool):
        self.header, self.rows, self.in_shares = header, rows, in_shares
        self.names = [_meaning(plain_name(name)) for name in header]

    def find(self) -> BoxColumns | None:
        for words in _CORNERS:
            if corners := self.group(words):
                return BoxColumns(corners, "corners", self.size_beside(corners))
        points, box = self.points(), self.with_sides(_CORNER)
        if len(points) > 4 and box is not None and not self.is_of_box(box.columns):
            what = f"has a box in {self.shown(box.columns)} and points in {self.shown(points)}"
            fix = "rename the columns that are not of the box, such as landmark_x1"
            return box._replace(problem=(what, fix))
        if len(points) > 4 and box is None:
            return BoxColumns(points, "points", self.size_beside())
        if len(points) == 4:
            return BoxColumns(points, "corners", self.size_beside(points))
        return box or self.with_sides(_NUMBERED_CORNER)

    def points(self) -> Pair:
        """The columns x1, y1, x2, y2, ..., or those from x0; of the box if some names say so."""
        for of in ("box", ""):
            pairs = (self.group(f"x{n} y{n}", (of,)) for n in range(100))
            if len(found := [column for pair in pairs for column in pair or ()]) >= 4:
                return tuple(found)
        return ()

    def with_sides(self, corner: Sequence[str]) -> BoxColumns | None:
        """A box with a width and a height, and a centre or a corner."""
        center = next(filter(None, map(self.group, _CENTERS)), None)
        start = center or next(filter(None, map(self.group, corner)), None)
        sides, size, problem = self.sides()
        if start is None or sides is None:
            return None
        form = "center" if center else "size"
        return BoxColumns(start + sides, form, size, problem=problem)

    def sides(self) -> tuple[Pair | None, Pair | None, tuple[str, str] | None]:
        """The columns of the box's width and height, the image's height and width, a problem."""
        of_box = next(filter(None, (self.group(words, ("box",)) for words in _SIDES)), None)
        of_image = self.size_of_image() or (self.plain_size() if self.in_shares else None)
        short, long = (self.group(words, ("",)) for words in _SIDES)
        if of_box is not None:
            return of_box, of_image or self.plain_size(), None
        if short is None or long is None:
            return short or long, of_image, None
        short_fits, long_fits = self.is_within(short, long), self.is_within(long, short)
        if short_fits and long_fits and of_image is not None:  # the same
            return short, of_image, None
        if of_image is None and (short_fits or long_fits):
            box, image = (short, long) if short_fits else (long, short)
            return box, image[::-1], None
        what = f"has {self.shown(short)} and {self.shown(long)}, which may both be of the box"
        return short, of_image, (what, "rename those of the box to bbox_width and bbox_height")

    def size_beside(self, corners: Pair = ()) -> Pair | None:
        """The image's height and width; a plain width and height may repeat those of the box."""
        size = self.size_of_image() or self.plain_size()
        repeated = size is not None and corners and self.is_repeated(size, corners)
        return None if repeated else size

    def size_of_image(self) -> Pair | None:
        """Height and width of the image by their names."""
        found = (self.group(words, ("image",), in_shares=False) for words in _SIDES[::-1])
        return next((pair[::-1] for pair in found if pair), None)

    def plain_size(self) -> Pair | None:
        """Plain height and width; w and h are not taken for the size of an image by themselves."""
        pair = self.group(_SIDES[1], ("",), in_shares=False)
        return pair[::-1] if pair else None

    def group(
        self, words: str, owners: Sequence[str] = ("box", ""), *, in_shares: bool | None = None
    ) -> Pair | None:
        """The columns of some words, or None; of the first of the owners that has the word."""
        in_shares, found = self.in_shares if in_shares is None else in_shares, []
        for word in words.split():
            wanted = [_Name(word, of, in_shares) for of in owners]
            columns = [self.names.index(name) for name in wanted if name in self.names]
            if not columns:
                return None
            found.append(columns[0])
        return tuple(found)

    def is_of_box(self, columns: Pair) -> bool:
        return all(self.names[column].of == "box" for column in columns)

    def is_within(self, sides: Pair, others: Pair) -> bool:
        """Whether a width and height are not larger than another one in the first rows."""
        return all(w <= x and h <= y for w, h, x, y in self.numbers(sides + others))

    def is_repeated(self, size: Pair, corners: Pair) -> bool:
        """Whether a height and width are those between the corners, up to one pixel."""
        rows = list(self.numbers(size + corners))
        return bool(rows) and all(
            abs(x2 - x1 - width) <= 1 and abs(y2 - y1 - height) <= 1
            for height, width, x1, y1, x2, y2 in rows
        )

    def numbers(self, columns: Pair) -> Iterator[list[float]]:
        """The numbers in some columns of the first rows, but for rows that lack one."""
        for row in self.rows:
            cells = [row[c].replace(",", ".") for c in columns if c < len(row)]
            numbers = [finite(cell, lenient=True) for cell in cells]
            if len(numbers) == len(columns) and None not in numbers:
                yield numbers

    def shown(self, columns: Pair) -> str:
        return ", ".join(self.header[column].strip() for column in columns)


def _meaning(name: str) -> _Name | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    before, owner, word, other, after = match.groups("")
    of = "image" if re.fullmatch(_IMAGE, owner or other) else "box" if owner or other else ""
    in_shares = (before or after).startswith(("norm", "rel"))
    return _Name(word, of, in_shares)
