"""The report of a sweep: report.md with tables and plots, report.csv with every trial, steps.csv
with every step of every trial.

Trials that differ in the seed alone are one line of a table: mean and standard deviation (with
n - 1), and the differences from the first line, paired by seed. The paper's results are in columns
of their own, for sweeps over a table of the paper.
"""

import csv
import io
import statistics
from pathlib import Path

from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.sweep.markdown import number_text, table_text
from retinanet_jax.sweep.seed_comparison import differences_table
from retinanet_jax.sweep.seed_groups import Group, group_trials, settings_columns
from retinanet_jax.sweep.steps_csv import steps_csv
from retinanet_jax.sweep.trials import FAILED, FINISHED, UNFINISHED, End, Trial, read_plan

COLUMNS = 3  # metrics in the table: AP, AP50, AP75; report.csv has all


def write_report(workdir: Path) -> str:
    """Writes report.md, report.csv, steps.csv and the plots report.svg and steps.svg.

    A plot is written once there is something to draw: a finished trial, and one that was evaluated
    at two steps.

    Returns:
        The text of report.md.

    Raises:
        WorkdirError: there is no sweep in `workdir`, or its plan is damaged.
    """
    from retinanet_jax.reports.plot_style import svg_file  # here: matplotlib takes time to import
    from retinanet_jax.sweep.steps_plot import draw_steps
    from retinanet_jax.sweep.sweep_plot import draw_sweep

    trials = read_plan(workdir)
    ends = [trial.end() for trial in trials]
    groups = group_trials(trials, ends)
    names = next((list(end.summary) for end in ends if end.summary), ["AP"])
    plots = {
        "report.svg": (draw_sweep(groups, names[0]), f"{names[0]} of the sweep"),
        "steps.svg": (draw_steps(trials, names[0]), f"{names[0]} over steps"),
    }
    plots = {file: (plot, title) for file, (plot, title) in plots.items() if plot is not None}
    for file, (plot, title) in plots.items():
        write_whole(workdir / file, svg_file(plot, title))
    write_whole(workdir / "report.csv", _csv(trials, ends, names))
    write_whole(workdir / "steps.csv", steps_csv(trials))
    images = [f"![{title}]({file})" for file, (_, title) in plots.items()]
    text = _markdown(workdir.name, trials, ends, groups, names[:COLUMNS], images)
    write_whole(workdir / "report.md", text)
    return text


def _markdown(
    title: str,
    trials: list[Trial],
    ends: list[End],
    groups: list[Group],
    names: list[str],
    images: list[str],
) -> str:
    states = [end.state for end in ends]
    counts = [f"{states.count(state)} {state}" for state in (FINISHED, FAILED, UNFINISHED)]
    parts = [f"# Sweep {title}", f"Trials: {len(trials)} ({', '.join(counts)})."]
    parts.append(_table(groups, names))
    if differences := differences_table(groups, names):
        parts += ["Difference from the first line, paired by seed; p of a paired t-test:"]
        parts.append(differences)
    parts += images
    for state in (FAILED, UNFINISHED):
        listed = [
            f"- `{trial.name}`" + (f": {end.error}" if end.error else "")
            for trial, end in zip(trials, ends, strict=True)
            if end.state == state
        ]
        if listed:
            parts += [f"{state.capitalize()}:", "\n".join(listed)]
    return "\n\n".join(parts) + "\n"


def _table(groups: list[Group], names: list[str]) -> str:
    heads, cells = settings_columns(groups)
    published = [name for name in names if any(name in group.paper for group in groups)]
    heads += ["finished", *names, *(f"{name}, paper" for name in published)]
    rows = [
        [
            *first,
            _count(group),
            *(_mean(group, name) for name in names),
            *(number_text(group.paper[name]) if name in group.paper else "" for name in published),
        ]
        for first, group in zip(cells, groups, strict=True)
    ]
    return table_text(heads, rows)


def _count(group: Group) -> str:
    """'2 of 3': finished trials, and all."""
    finished = sum(end.state == FINISHED for end in group.ends)
    return f"{finished} of {len(group.ends)}"


def _mean(group: Group, name: str) -> str:
    """Mean and deviation over the seeds; '-' where undefined, '' where nothing has finished."""
    values = group.values(name)
    if not values:
        return "-" if any(name in end.summary for end in group.ends) else ""
    if len(values) == 1:
        return number_text(values[0])
    return f"{number_text(statistics.mean(values))} ± {number_text(statistics.stdev(values))}"


def _csv(trials: list[Trial], ends: list[End], names: list[str]) -> str:
    fields = list(dict.fromkeys(field for trial in trials for field in trial.settings))
    published = list(dict.fromkeys(name for trial in trials for name in trial.paper))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ["trial", *fields, "state", *names, *(f"paper {name}" for name in published), "error"]
    writer.writerow(head)
    for trial, end in zip(trials, ends, strict=True):
        values = [trial.settings.get(field, "") for field in fields]
        numbers = [end.summary.get(name) for name in names]
        paper = [trial.paper.get(name) for name in published]
        writer.writerow([trial.name, *values, end.state, *numbers, *paper, end.error])
    return file.getvalue()
