"""The trials of a sweep: which they are, how they lie on the disk, how far each has come.

DIR/sweep.json          the plan: the trials by name and what each sets
DIR/NAME/               the workdir of a trial, as of any run
DIR/NAME/config.json    its config; here already before it begins
DIR/NAME/trial.json     how it ended; a trial without this file has not ended
DIR/NAME/error.txt      of one that failed: the traceback
"""

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from retinanet_jax.config.paper_tables import TABLES
from retinanet_jax.config.settings import Config, ConfigError, from_config_dict, from_json, to_json
from retinanet_jax.runtime.workdir import WorkdirError, write_whole
from retinanet_jax.sweep.grid import Axis, Settings, name_of, product

PLAN_FILE, END_FILE, ERROR_FILE = "sweep.json", "trial.json", "error.txt"
FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"


class Trial(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: of its folder.
        settings: what the sweep sets in its config.
        workdir: its folder.
        paper: what the paper reports where it has this trial: 'table', of a sweep of that table
            'row', and its numbers by the names that ours have, as fractions.
    """

    name: str
    settings: Settings
    workdir: Path
    paper: dict[str, Any] = {}  # noqa: RUF012 (never written to)

    def config(self) -> Config:
        """As it was planned."""
        return from_json((self.workdir / "config.json").read_text())

    def end(self) -> "End":
        """How it ended, if it has."""
        path = self.workdir / END_FILE
        return End(**json.loads(path.read_text())) if path.exists() else End(UNFINISHED)


class End(NamedTuple):
    """How far a trial has come.

    Attributes:
        state: FINISHED, FAILED or UNFINISHED.
        summary: of a finished one: what was measured at its end, by name; None for NaN.
        error: of a failed one, a line.
    """

    state: str
    summary: dict[str, float | None] = {}  # noqa: RUF012 (never written to)
    error: str = ""

    def write(self, workdir: Path) -> None:
        write_whole(workdir / END_FILE, json.dumps(self._asdict(), indent=2))


def plan_trials(
    tree: ConfigDict, axes: list[Axis], workdir: Path, table: str = ""
) -> list[tuple[Trial, Config]]:
    """All combinations of the axes, laid over a config and checked, before anything runs.

    Args:
        tree: the config that the trials have in common.
        axes: see axes.py.
        workdir: of the sweep.
        table: 'NAME' or 'NAME:VARIANT' of the paper, if one of the axes is its rows.

    Raises:
        ConfigError: with all trials whose config cannot be, and why.
    """
    planned, errors = [], []
    combined = product(axes)
    fields = {field: None for settings in combined for field in settings}  # a set with an order
    for settings in combined:
        name = name_of(settings, fields)
        config = copy.deepcopy(tree)
        try:
            config.update_from_flattened_dict(settings)
            trial = Trial(name, settings, workdir / name, published(settings, table))
            planned.append((trial, from_config_dict(config)))
        except (ConfigError, TypeError, ValueError) as error:
            errors.append(f"{name}: {error}")
    if errors:
        raise ConfigError("\n".join(errors))
    names = [trial.name for trial, _ in planned]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"trials cannot be told apart by their names: {', '.join(sorted(twice))}")
    return planned


def write_plan(planned: list[tuple[Trial, Config]], workdir: Path) -> list[Trial]:
    """Leaves the plan in the workdir of the sweep; where the same lies there, it goes on.

    Raises:
        WorkdirError: another plan lies there.
    """
    if (workdir / PLAN_FILE).exists():
        _check_same_plan(planned, workdir)
    else:
        for trial, config in planned:
            write_whole(trial.workdir / "config.json", to_json(config))
        trials = {t.name: {"settings": t.settings, "paper": t.paper} for t, _ in planned}
        # The last of the files: where it lies, the plan is whole.
        write_whole(workdir / PLAN_FILE, json.dumps({"trials": trials}, indent=2))
    return [trial for trial, _ in planned]


def read_plan(workdir: Path) -> list[Trial]:
    """The trials of a sweep.

    Raises:
        WorkdirError: there is no sweep.
    """
    path = workdir / PLAN_FILE
    if not path.exists():
        raise WorkdirError(
            f"{path}: there is no plan of a sweep; name the folder of one in --workdir, or begin "
            "one with --config and --grid"
        )
    trials = json.loads(path.read_text())["trials"]
    return [
        Trial(name, _tuples(entry["settings"]), workdir / name, entry["paper"])
        for name, entry in trials.items()
    ]


def published(settings: Settings, table: str = "") -> dict[str, Any]:
    """What the paper reports of a trial (Trial.paper); nothing where it has no such trial.

    Args:
        settings: of the trial; those that are not among the fields of the paper's tables (the seed,
            a shorter schedule) are its own affair.
        table: as of `plan_trials`: rows are of this table, and what its trials have in common is
            not among the settings. '': of any table, and the settings name all.
    """
    only, _, variant = table.partition(":")
    for name in [only] if only else TABLES:
        base = {} if only else TABLES[name].base
        rows = [(base | row.settings_of(variant), row) for row in TABLES[name].rows]
        fields = {field for known, _ in rows for field in known}
        ours = {field: value for field, value in settings.items() if field in fields}
        for known, row in rows:
            if known == ours and (known or only):
                numbers = {"AP": row.ap, "AP50": row.ap50, "AP75": row.ap75} | row.also
                numbers = {
                    k: round(v / 100, 4) for k, v in numbers.items() if v is not None and k != "ms"
                }
                return {"table": name, **({"row": row.name} if only else {}), **numbers}
    return {}


def _check_same_plan(planned: list[tuple[Trial, Config]], workdir: Path) -> None:
    before = {trial.name: trial for trial in read_plan(workdir)}
    now = {trial.name for trial, _ in planned}
    changes = [f"{name} is new" for name in now - set(before)]
    changes += [f"{name} is gone" for name in set(before) - now]
    changes += [
        f"{trial.name} has another config"
        for trial, config in planned
        if trial.name in before and before[trial.name].config() != config
    ]
    if changes:
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise WorkdirError(
            f"{workdir / PLAN_FILE}: holds another plan: {', '.join(sorted(changes)[:5])}{more}; "
            f"use another --workdir, or go on with that plan by --workdir={workdir} alone"
        )


def _tuples(settings: dict[str, Any]) -> Settings:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
