"""A matrix as SVG: shades, and numbers where there is room for them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from retinanet_jax.reports.html.markup import Html, shortened, tag

ROOM, LARGEST, SMALLEST = 620, 48.0, 9.0  # pixels of all cells together, and of a side of one
MAX_NUMBERED = 12  # rows whose cells have room for numbers
DARK = 0.55  # shade on which numbers are bright


def matrix_plot(
    shades: Float[np.ndarray, "r c"],
    cells: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    titles: tuple[str, str],
) -> Html:
    """A matrix of shades in [0, 1]; those of 0 stay empty.

    Args:
      cells: texts: written into the cells of small matrices, told by the pointer in all.
      rows, columns: names.
      titles: of the rows and of the columns.
    """
    row_names, column_names = (list(map(shortened, names)) for names in (rows, columns))
    side = max(SMALLEST, min(LARGEST, ROOM / max(len(rows), len(columns))))
    letter = min(12.0, 0.95 * side)
    margin = 0.6 * letter * max(map(len, (*row_names, *column_names))) + 28
    width, height = margin + side * len(columns), margin + side * len(rows)
    drawn = [
        _cell(
            margin + side * j,
            margin + side * i,
            side,
            float(shades[i, j]),
            cells[i][j],
            f"{titles[0]} {rows[i]}, {titles[1]} {columns[j]}",
            len(rows) <= MAX_NUMBERED,
        )
        for i, j in np.argwhere(shades > 0).tolist()
    ]
    size = f"font-size:{letter:.1f}px"
    for i, name in enumerate(row_names):
        y = margin + side * (i + 0.5) + letter / 3
        drawn.append(tag("text", name, x=margin - 6, y=y, text_anchor="end", style=size))
    for j, name in enumerate(column_names):
        x = margin + side * (j + 0.5) + letter / 3
        drawn.append(tag("text", name, transform=_upwards(x, margin - 6), style=size))
    middle, centre = (margin + width) / 2, (margin + height) / 2
    heading = {"text_anchor": "middle", "class_": "title"}
    drawn.append(tag("text", titles[1], x=middle, y=14, **heading))
    drawn.append(tag("text", titles[0], transform=_upwards(14.0, centre), **heading))
    return tag(
        "svg",
        drawn,
        viewBox=f"0 0 {width + 8:.0f} {height + 8:.0f}",
        class_="chart",
        role="img",
        aria_label=f"{titles[0]} by {titles[1]}",
        style=f"max-width:{width + 8:.0f}px",
    )


def _cell(
    x: float, y: float, side: float, shade: float, text: str, told: str, numbered: bool
) -> list[Html]:
    title = tag("title", f"{told}: {text}")
    box = {"x": x, "y": y, "width": side - 1, "height": side - 1}
    drawn = [tag("rect", title, **box, class_="cell", fill_opacity=f"{shade:.3f}")]
    if numbered:
        kind = "strong" if shade > DARK else None
        place = {"x": x + side / 2, "y": y + side / 2 + 4, "text_anchor": "middle"}
        drawn.append(tag("text", text, **place, class_=kind))
    return drawn


def _upwards(x: float, y: float) -> str:
    """Text that begins at a point and runs upwards."""
    return f"translate({x:.1f} {y:.1f}) rotate(-90)"
