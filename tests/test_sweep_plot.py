"""The plot of a sweep: lines over a field or rows, with the value of each seed."""

import json

import numpy as np
import pytest

from retinanet_jax.reports.plot_style import COLORS
from retinanet_jax.sweep.seed_groups import Group
from retinanet_jax.sweep.steps_plot import draw_steps
from retinanet_jax.sweep.sweep_plot import MEASURED, PUBLISHED, draw_sweep
from retinanet_jax.sweep.trials import FINISHED, End, Trial


def group(settings, values=(), **paper):
    ends = [End(FINISHED, {"AP": value}) for value in values]
    return Group(settings, paper, ends, list(range(len(ends))))


def plotted(figure):
    """Points of the lines of a plot by marker and line style, without empty lines."""
    return [
        (line.get_marker() + line.get_linestyle().replace("None", ""), line.get_xydata().tolist())
        for line in figure.axes[0].lines
        if len(line.get_xdata())
    ]


def legend_names(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_lines_go_through_the_means_and_show_each_seed():
    groups = [
        group({"loss.gamma": 2.0}, [0.3, 0.6, 0.3], AP=0.34),
        group({"loss.gamma": 0.5}, [0.2]),
        group({"loss.gamma": 5.0}, AP=0.32),  # not finished
    ]
    figure = draw_sweep(groups, "AP")
    (axes,) = figure.axes
    # The values of gamma are evenly spaced.
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["0.5", "2", "5"] and axes.get_xticks().tolist() == [0, 1, 2]
    paper, mean, seeds = plotted(figure)
    assert paper == ("o--", [[1, 0.34], [2, 0.32]])
    assert mean[0] == "o-" and np.array(mean[1]) == pytest.approx(np.array([[0, 0.2], [1, 0.4]]))
    assert seeds == (".", [[1, 0.3], [1, 0.6], [1, 0.3]])
    (area,) = axes.collections
    assert {tuple(point) for point in area.get_paths()[0].vertices} == {
        (0, 0.2),
        (1, 0.3),
        (1, 0.6),
    }
    assert legend_names(figure) == ["AP", PUBLISHED] and axes.get_xlabel() == "loss.gamma"


def test_other_fields_have_their_own_lines():
    groups = [
        group({"loss.gamma": gamma, "loss.alpha": alpha}, [gamma * alpha])
        for gamma in (0.0, 2.0)
        for alpha in (0.25, 0.5)
    ]
    figure = draw_sweep(groups, "AP")
    assert plotted(figure) == [
        ("o-", [[0, 0.0], [1, 0.5]]),
        ("s-", [[0, 0.0], [1, 1.0]]),
    ]
    assert legend_names(figure) == ["alpha=0.25", "alpha=0.5"]


def test_fields_that_change_together_are_one_line():
    groups = [
        group({"loss.gamma": 0.0, "loss.alpha": 0.75}, [0.1]),
        group({"loss.gamma": 2.0, "loss.alpha": 0.25}, [0.2]),
    ]
    (line,) = plotted(draw_sweep(groups, "AP"))
    assert line == ("o-", [[0, 0.1], [1, 0.2]])


def test_many_values_have_an_axis_to_scale():
    def ends_of_axis(values):
        groups = [group({"optimizer.learning_rate": value}, [value]) for value in values]
        (axes,) = draw_sweep(groups, "AP").axes
        return axes.get_xscale(), axes.lines[1].get_xdata()[[0, -1]].tolist()

    assert ends_of_axis(np.linspace(1, 2, 13).tolist()) == ("linear", [1, 2])
    assert ends_of_axis(np.geomspace(0.001, 1, 13).tolist()) == ("log", [0.001, 1])


def test_values_that_are_no_numbers_are_rows():
    groups = [
        group({"loss.box": "giou"}, [0.3, 0.5], AP=0.36, row="from the table"),
        group({"loss.box": "l1"}, [0.2]),
        group({"loss.box": "smooth_l1"}),  # not finished
    ]
    figure = draw_sweep(groups, "AP")
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["from the table", "box=l1", "box=smooth_l1"]
    assert plotted(figure) == [
        ("o", [[0.36, 0]]),
        ("o", [[0.4, 0]]),
        (".", [[0.3, 0], [0.5, 0]]),
        ("o", [[0.2, 1]]),
    ]
    assert axes.lines[0].get_markerfacecolor() == COLORS["card"]  # hollow
    assert legend_names(figure) == [PUBLISHED, MEASURED]


def test_without_results_there_is_no_plot():
    assert (
        draw_sweep([group({"loss.gamma": 2.0}, AP=0.34), group({"loss.gamma": 0.0})], "AP") is None
    )


def evaluated(folder, name, settings, values, paper=None):
    """A trial with an AP of each step in its metrics.jsonl."""
    (folder / name).mkdir()
    lines = [{"step": step, "kind": "train", "loss": 1.0} for step in (1, 2)]
    lines += [{"step": step, "kind": "eval", "AP": ap} for step, ap in values.items()]
    # The weights without their average: another curve.
    lines += [{"step": step, "kind": "eval_raw", "AP": 0.9} for step in values]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / name / "metrics.jsonl").write_text(text)
    (folder / name / "config.json").write_text(json.dumps({"seed": settings.get("seed", 0)}))
    return Trial(name, settings, folder / name, paper or {})


def test_steps_have_a_line_for_each_combination(tmp_path):
    trials = [
        evaluated(tmp_path, "a", {"loss.gamma": 2.0, "seed": 0}, {200: 0.1, 400: 0.3}),
        evaluated(tmp_path, "b", {"loss.gamma": 2.0, "seed": 1}, {200: 0.2, 400: 0.5}),
        evaluated(tmp_path, "c", {"loss.gamma": 5.0, "seed": 0}, {200: None, 400: 0.1}),
        evaluated(tmp_path, "d", {"loss.gamma": 9.0, "seed": 0}, {}, {"row": "gamma 9"}),
    ]
    figure = draw_steps(trials, "AP")
    (marker, first), (_, second) = plotted(figure)
    assert marker == "o-" and np.array(first) == pytest.approx(np.array([[200, 0.15], [400, 0.4]]))
    assert second == [[400, 0.1]]
    assert legend_names(figure) == ["gamma=2", "gamma=5"]
    area, _ = figure.axes[0].collections
    assert {(200, 0.1), (200, 0.2), (400, 0.3), (400, 0.5)} == {
        tuple(point) for point in area.get_paths()[0].vertices
    }
    paper = [trial._replace(paper={"row": f"row {trial.name}"}) for trial in trials[:2]]
    assert legend_names(draw_steps(paper, "AP")) == ["row a", "row b"]
    assert draw_steps(trials[2:], "AP") is None  # no trial has two values
