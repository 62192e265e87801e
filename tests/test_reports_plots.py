"""Plots: the data are where they belong, in the user's matplotlib, in a page and in a file."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from html_check import check

from retinanet_jax.reports.html_page import Section, document
from retinanet_jax.reports.plot_style import COLORS, inline_svg, octave_limits, svg_file
from retinanet_jax.reports.plots import (
    UNIT,
    Band,
    Line,
    Mark,
    band_plot,
    bar_plot,
    histogram,
    line_plot,
    matrix_plot,
    shades,
    shape_plot,
)


def legend_names(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def lines_of(count, name="line"):
    x = np.array([0.0, 1.0])
    return [Line(f"{name} {i}", x, x * i, color) for i, color in enumerate(shades(count))]


def test_lines_have_their_points_colors_and_names():
    x, y = np.array([0.0, 0.5, 1.0]), np.array([0.0, np.nan, 2.0])
    lines = [Line("a", x, y, "#112233"), Line("b", x, x, "#445566", dashed=True)]
    figure = line_plot(lines, "across", "up", x_limits=UNIT)
    (axes,) = figure.axes
    first, second = axes.lines
    np.testing.assert_array_equal(first.get_xydata(), np.stack([x, y], axis=1))
    assert (first.get_color(), second.get_color()) == ("#112233", "#445566")
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    assert legend_names(figure) == ["a", "b"] and axes.get_xlim() == UNIT
    assert legend_names(line_plot(lines[:1], "across", "up")) == []


def test_bands_fill_the_area_between_their_lines():
    x, zero, one = np.array([0.0, 1.0]), np.zeros(2), np.ones(2)
    bands = [Band("low", zero, one / 2, "#112233"), Band("high", one / 2, one, "#445566")]
    figure = band_plot(x, bands, "recall", "precision")
    (axes,) = figure.axes
    for band, area in zip(bands, axes.collections, strict=True):
        (path,) = area.get_paths()
        (left, bottom), (right, top) = path.vertices.min(axis=0), path.vertices.max(axis=0)
        assert (left, right) == (0, 1) and (bottom, top) == (band.low[0], band.high[0])
    assert legend_names(figure) == ["high", "low"]


def test_bars_stand_between_their_edges():
    edges = np.array([0.0, 0.5, 1.0])
    figure = bar_plot(edges, np.array([0.25, np.nan]), "share", [], "score", "precision")
    first, second = figure.axes[0].patches
    assert (first.get_x(), first.get_width(), first.get_height()) == (0.0, 0.5, 0.25)
    assert np.isnan(second.get_height())


@pytest.mark.parametrize("octaves", [False, True])
def test_histograms_show_shares_and_keep_what_is_outside(octaves):
    values = np.array([1.0, 3.0, 3.0, 100.0])
    marks = [Mark(2.0, "inside"), Mark(9.0, "outside")]
    series = [("train", values), ("val", values[:1]), ("empty", values[:0])]
    figure = histogram(series, "side", (1.0, 4.0), bins=2, octaves=octaves, marks=marks)
    (axes,) = figure.axes
    bars = axes.containers[0]
    # The bins are [1, 2) and [2, 4] of octaves, [1, 2.5) and [2.5, 4] of equal widths.
    assert [bar.get_height() for bar in bars] == [0.25, 0.75]
    assert bars[1].get_x() == pytest.approx(2.0 if octaves else 2.5)
    steps = axes.patches[len(bars)]
    assert steps.get_data().values.tolist() == [1, 0]
    assert [text.get_text() for text in axes.texts] == ["inside"]
    if octaves:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]


def test_octaves_hold_all_positive_values():
    assert octave_limits(np.array([0.3, 5.0])) == (0.25, 8.0)
    assert octave_limits(np.array([4.0])) == (4.0, 8.0)
    assert octave_limits(np.array([0.0])) == octave_limits(np.zeros(0)) == (1.0, 2.0)


def test_shapes_are_points_and_crosses():
    points, crosses = np.array([[2.0, 4.0], [8.0, 4.0]]), np.array([[4.0, 4.0]])
    groups = [("covered", points, "#112233"), ("missed", points[:0], "#445566")]
    figure = shape_plot(groups, crosses, "anchors", (1.0, 8.0), "width", "height")
    covered, missed, anchors = figure.axes[0].lines
    assert covered.get_xydata().tolist() == points.tolist() and not len(missed.get_xdata())
    assert anchors.get_xydata().tolist() == crosses.tolist()
    assert legend_names(figure) == ["covered", "missed", "anchors"]


def test_matrices_have_shades_and_small_ones_numbers():
    shares, names = np.array([[1.0, 0.0], [0.25, 0.75]]), ["a", "b"]
    cells = [["7", "0"], ["1", "3"]]
    figure = matrix_plot(shares, cells, names, names, ("object", "detected as"))
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array()[..., 3], shares)
    # Column and row of each number; zeros have none.
    assert {(*t.get_position(), t.get_text()) for t in axes.texts} == {
        (0, 0, "7"), (0, 1, "1"), (1, 1, "3")
    }  # fmt: skip
    assert axes.get_xlabel() == "detected as" and axes.get_ylabel() == "object"
    many = [str(i) for i in range(40)]
    large = matrix_plot(np.eye(40), [["1"] * 40] * 40, many, many, ("object", "detected as"))
    assert not large.axes[0].texts


def test_neighboring_shades_differ_in_lightness():
    assert len(set(shades(10))) == 10
    light = [
        np.dot([int(color[i : i + 2], 16) for i in (1, 3, 5)], (0.299, 0.587, 0.114))
        for color in shades(4)
    ]
    assert min(abs(np.diff(light))) > 20


def test_text_of_any_script_stays_text():
    names = ["кот", "猫", "_underscore", "$a$ < b & c", "<script>"]
    plot = line_plot([line._replace(name=n) for line, n in zip(lines_of(5), names, strict=True)],
                     "x", "y")  # fmt: skip
    page = document("Plots", "", "", [Section("Plots", "plots", inline_svg(plot, "of <b>"))])
    checker = check(page)
    assert set(names) <= set(checker.text)
    (svg,) = (attributes for name, attributes in checker.tags if name == "svg")
    assert svg["role"] == "img" and svg["aria-label"] == "of <b>"


def test_long_legends_stay_inside_the_plot():
    svg = inline_svg(line_plot(lines_of(9, "a rather long name of a line"), "x", "y"), "long")
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())
    places = re.findall(r'<text [^>]*x="(\S+)" y="(\S+)"[^>]*>(a rather.*?)<', svg)
    assert len(places) == 9
    for x, y, name in places:
        # A letter is about 0.55 of the font size wide.
        assert 0 <= float(x) <= width - 0.55 * 12 * len(name) and 0 < float(y) < height


def test_colors_follow_the_mode_of_a_page_and_are_fixed_in_a_file():
    plot = bar_plot(np.array([0.0, 1.0]), np.ones(1), "share", lines_of(2), "x", "y")
    page, file = inline_svg(plot, "plot"), svg_file(plot, "plot")
    for name in ("accent", "ink", "soft", "line"):
        assert f"var(--{name})" in page and COLORS[name] not in page and COLORS[name] in file
    assert "var(" not in file and f"fill: {COLORS['card']}" in file and "http" not in page
    assert ElementTree.fromstring(file).tag == "{http://www.w3.org/2000/svg}svg"


def test_ids_are_the_same_in_each_run_and_differ_between_plots():
    def drawn(label):
        return inline_svg(line_plot(lines_of(3), "x", "y", x_limits=UNIT), label)

    assert drawn("one") == drawn("one")
    one, two = (set(re.findall(r'id="(.*?)"', drawn(label))) for label in ("one", "two"))
    assert one and not one & two


def test_the_user_keeps_their_settings_and_plots_do_not_depend_on_them():
    plain = inline_svg(line_plot(lines_of(2), "x", "y"), "plot")
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "black", "font.size": 30}):
        before = dict(matplotlib.rcParams)
        assert inline_svg(line_plot(lines_of(2), "x", "y"), "plot") == plain
        assert dict(matplotlib.rcParams) == before


def test_training_and_sweeps_do_not_import_matplotlib():
    program = """
import sys
import retinanet_jax.sweep.command, retinanet_jax.training.run
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
