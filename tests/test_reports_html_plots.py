"""Plots: points at their places, legends that fit, empty cells that stay empty."""

import re

import numpy as np

from retinanet_jax.reports.html.axes import Axis, Steps, around
from retinanet_jax.reports.html.frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from retinanet_jax.reports.html.matrix import matrix_plot
from retinanet_jax.reports.html.measured import SHAPES, Measured, Row, measured_plot, row_plot
from retinanet_jax.reports.html.plots import Band, Line, band_plot, bar_plot, line_plot, shades

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


def test_steps_are_equally_far_and_an_axis_around_values_holds_them():
    steps = Steps((0.0, 0.1, 5.0), "gamma")
    assert steps.place(np.array([0.0, 0.1, 5.0])).tolist() == [1 / 6, 0.5, 5 / 6]
    assert [steps.name(value) for value in steps.ticks()] == ["0", "0.1", "5"]
    for values in ([0.3, 0.45], [0.4], [0.0]):
        axis = around(values, "AP")
        assert axis.low < min(values) and max(values) < axis.high and axis.ticks()


def test_measured_lines_show_every_value_and_published_ones_are_hollow():
    x, twice = [0.0, 1.0], [[0.0, 1.0], [2.0]]
    lines = [
        Measured("a", x, twice, "#123456"),
        Measured("b", x, [[1.0], [1.0]], "#654321", SHAPES[1]),
        Measured("c", x, [[0.0], [2.0]], "#123456", published=True),
    ]
    plot = measured_plot(X, Y, lines)
    low, middle = HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2
    # The first x has two values, and its mark is in the middle between them.
    dots = [f'cx="{LEFT}" cy="{y:g}"' for y in (low, middle)]
    assert plot.count("<circle") == 2 and all(dot in plot for dot in dots)
    assert f"translate({LEFT:.1f} {(low + middle) / 2:.1f})" in plot
    assert plot.count('fill-opacity=".13"') == 1  # of three lines one has a spread
    assert plot.count(f'd="{SHAPES[1]}"') == 3  # two points, and the legend
    assert plot.count('fill="var(--card)"') == 3 and f'd="{CORNERS}"' in plot
    assert ">a</text>" in plot and ">c</text>" not in plot and "the paper&#x27;s" not in plot
    assert ">the paper's, on COCO</text>" in plot


def test_rows_have_their_names_and_what_was_not_measured_stays_empty():
    rows = [Row("first", [0.0, 1.0], 1.0), Row("second", [0.5]), Row("third", [])]
    plot = row_plot(X, rows)
    places = {name: float(y) - 4 for y, name in re.findall(r' y="(\S+)" [^>]*>(\w+)</text>', plot)}
    at = [float(y) for y in re.findall(r'translate\(\S+ (\S+?)\)" fill="var\(--accent', plot)]
    assert at[:2] == [places["first"], places["second"]]
    assert places["third"] not in at and plot.count("<circle") == 2
    assert plot.count('fill="var(--card)"') == 2  # one row is published; and the legend
    assert "measured here" not in row_plot(X, rows[1:])


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
