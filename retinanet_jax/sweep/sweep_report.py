"""What came out of a sweep: report.md with a table and a plot, and report.csv with every trial.

The trials that differ in the seed alone are a line of the table: their mean, and the standard
deviation of a trial (divided by n - 1) beside it. Numbers of the paper stand in columns of their
own; they are of COCO.
"""

import csv
import io
import statistics
from pathlib import Path

from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.sweep.seed_groups import Group, group_trials
from retinanet_jax.sweep.trials import FAILED, FINISHED, UNFINISHED, End, Trial, read_plan

COLUMNS = 3  # numbers of a trial in the table: AP, AP50, AP75; the others are in the CSV file


def write_report(workdir: Path) -> str:
    """Writes report.md, report.csv and, once something was measured, report.svg.

    Returns:
        The text of report.md.

    Raises:
        WorkdirError: there is no sweep in `workdir`.
    """
    from retinanet_jax.reports.plot_style import svg_file  # here: matplotlib takes time to import
    from retinanet_jax.sweep.sweep_plot import draw_sweep

    trials = read_plan(workdir)
    ends = [trial.end() for trial in trials]
    groups = group_trials(trials, ends)
    names = next((list(end.summary) for end in ends if end.summary), ["AP"])
    plot = draw_sweep(groups, names[0])
    if plot is not None:
        write_whole(workdir / "report.svg", svg_file(plot, f"{names[0]} of the sweep"))
    write_whole(workdir / "report.csv", _csv(trials, ends, names))
    text = _markdown(workdir.name, trials, ends, groups, names[:COLUMNS], plot is not None)
    write_whole(workdir / "report.md", text)
    return text


def _markdown(
    title: str,
    trials: list[Trial],
    ends: list[End],
    groups: list[Group],
    names: list[str],
    has_plot: bool,
) -> str:
    states = [end.state for end in ends]
    counts = [f"{states.count(state)} {state}" for state in (FINISHED, FAILED, UNFINISHED)]
    parts = [f"# Sweep {title}", f"Trials: {len(trials)} ({', '.join(counts)})."]
    parts.append(_table(groups, names))
    if has_plot:
        parts.append(f"![{names[0]}](report.svg)")
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
    fields = list(dict.fromkeys(field for group in groups for field in group.settings))
    published = [name for name in names if any(name in group.paper for group in groups)]
    titled = ["row"] if any("row" in group.paper for group in groups) else []
    head = [*titled, *fields, "finished", *names, *(f"{name}, paper" for name in published)]
    rows = [
        [
            *(group.paper.get(title, "") for title in titled),
            *(_text(group.settings.get(field, "")) for field in fields),
            _count(group),
            *(_mean(group.values(name)) for name in names),
            *(_number(group.paper[name]) if name in group.paper else "" for name in published),
        ]
        for group in groups
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _count(group: Group) -> str:
    """Trials that are finished, and of how many."""
    finished = sum(end.state == FINISHED for end in group.ends)
    return f"{finished} of {len(group.ends)}"


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return _number(values[0]) if values else ""
    return f"{_number(statistics.mean(values))} ± {_number(statistics.stdev(values))}"


def _number(value: float) -> str:
    """Three digits without the zero before the point, as tables of AP have them."""
    return f"{value:.3f}".lstrip("0")


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")


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
