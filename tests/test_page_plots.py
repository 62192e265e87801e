"""Plots: points at their places, legends that fit, empty cells that stay empty."""

import re

import numpy as np

from retinanet_jax.page.charts import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Axis
from retinanet_jax.page.matrix import matrix_plot
from retinanet_jax.page.plots import (
    HEIGHT,
    Band,
    Line,
    Spread,
    band_plot,
    bar_plot,
    line_plot,
    shades,
    spread_plot,
)

X, Y = Axis(0.0, 1.0, "across", log=False), Axis(0.0, 2.0, "up", log=False)
CORNERS = f"M{LEFT:.1f} {HEIGHT - BOTTOM:.1f}L{WIDTH - RIGHT:.1f} {TOP:.1f}"


def test_lines_go_from_corner_to_corner_and_leave_nan_out():
    x, y = np.array([0.0, 0.5, 1.0]), np.array([0.0, np.nan, 2.0])
    assert f'd="{CORNERS}"' in line_plot(X, Y, [Line("a", x, y, "#000")])
    nothing = line_plot(X, Y, [Line("a", np.zeros(0), np.zeros(0), "#000")])
    assert 'd=""' in nothing


def test_points_that_nobody_could_tell_apart_are_drawn_once():
    x = np.linspace(0, 1, 100_000)
    path = re.search(r'd="(.*?)"', line_plot(X, Y, [Line("a", x, 2 * x, "#000")]))[1]
    assert path.count("L") < 2000
    assert path.startswith(CORNERS.split("L")[0]) and path.endswith(CORNERS.split("L")[1])


def test_bands_and_bars_are_closed_at_the_axis():
    x = np.array([0.0, 1.0])
    band = band_plot(X, Y, x, [Band("a", np.zeros(2), np.array([2.0, 2.0]), "#123456")])
    path = re.search(r' d="(.*?)Z"', band)[1]
    assert path.count("L") == 3 and 'fill="#123456"' in band
    bars = bar_plot(X, Y, np.array([0.0, 0.5, 1.0]), np.array([1.0, np.nan]), [], "a")
    assert bars.count('class="series0"') == 1
    assert f'height="{(HEIGHT - TOP - BOTTOM) / 2:g}"' in bars


def test_spreads_have_dots_and_strokes_where_there_is_a_spread():
    x, y = np.array([0.0, 1.0]), np.array([0.0, 2.0])
    lines = [
        Spread("a", x, y, np.array([0.0, 1.0]), y, "#123456"),
        Spread("b", x, y, y, y, "#654321"),
        Spread("c", x, y, y, y, "#123456", dashed=True),
    ]
    plot = spread_plot(X, Y, lines)
    middle = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) / 2
    stroke = f'x1="{WIDTH - RIGHT}" x2="{WIDTH - RIGHT}" y1="{middle:g}" y2="{TOP}"'
    assert plot.count(stroke) == 1 and plot.count(' stroke="#123456"></line>') == 1
    assert plot.count("<circle") == 6 and plot.count('fill="var(--card)"') == 2
    assert plot.count(CORNERS) == 3 and ">a</text>" in plot and ">c</text>" not in plot


def test_legends_wrap():
    lines = [Line(f"a rather long name {i}", np.zeros(1), np.zeros(1), c)
             for i, c in enumerate(shades(9))]  # fmt: skip
    plot = line_plot(X, Y, lines)
    height = float(re.search(r'viewBox="0 0 \S+ (\S+)"', plot)[1])
    keys = re.findall(r'<text x="(\S+)" y="(\S+)">(a rather.*?)<', plot)
    assert len(keys) == len(set(shades(9))) == 9
    for x, y, name in keys:
        assert float(x) + 6.4 * len(name) <= WIDTH and HEIGHT < float(y) < height


def test_small_matrices_have_numbers_and_zeros_are_left_out():
    eye = np.eye(3)
    cells, names = [["7" if i == j else "0" for j in range(3)] for i in range(3)], ["a", "b", "c"]
    plot = matrix_plot(eye, cells, names, names, ("row", "column"))
    assert plot.count("<rect") == 3 and plot.count(">7</text>") == 3 and ">0</text>" not in plot
    assert "row b, column b: 7" in plot
    many = [str(i) for i in range(40)]
    large = matrix_plot(np.eye(40), [["x"] * 40] * 40, many, many, ("row", "column"))
    assert large.count("<rect") == 40 and ">x</text>" not in large
