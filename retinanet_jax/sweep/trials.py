"""The trials of a sweep: the plan, the files of a trial, how a trial ended.

DIR/sweep.json          the plan: settings of each trial, by name
DIR/NAME/               the workdir of a trial, like that of any run
DIR/NAME/planned.json   its config, with 'auto', written before any trial starts
DIR/NAME/config.json    the same with numbers, written by its run
DIR/NAME/trial.json     how it ended; missing while it has not
DIR/NAME/error.txt      of a failed trial: the traceback
"""

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from retinanet_jax.config.paper_tables import TABLES
from retinanet_jax.config.settings import (
    Config,
    ConfigError,
    from_config_dict,
    read_config_file,
    to_json,
)
from retinanet_jax.config.without_effect import reason_without_effect
from retinanet_jax.runtime.workdir import WorkdirError, locked, write_whole
from retinanet_jax.sweep.grid import Axis, Settings, name_of, product

PLAN_FILE = "sweep.json"
CONFIG_FILE, END_FILE, ERROR_FILE = "planned.json", "trial.json", "error.txt"
FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"


class Trial(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: name of the trial and of its folder.
        settings: fields of the config that the sweep sets.
        workdir: folder of the trial.
        paper: of a sweep over a table of the paper: 'table', 'row', and the paper's metrics by
            name, as fractions. Otherwise empty.
    """

    name: str
    settings: Settings
    workdir: Path
    paper: dict[str, Any] = {}  # noqa: RUF012 (never written to)

    @property
    def combination(self) -> Settings:
        """The settings without the seed."""
        return {field: value for field, value in self.settings.items() if field != "seed"}

    @property
    def config_file(self) -> Path:
        """Has the config of the plan; config.json in a sweep of an earlier version."""
        planned, before = self.workdir / CONFIG_FILE, self.workdir / "config.json"
        return before if before.exists() and not planned.exists() else planned

    def has_config(self) -> bool:
        return self.config_file.exists()

    def config(self) -> Config:
        """The config of the plan.

        Raises:
            WorkdirError: its file was deleted.
        """
        if not self.has_config():
            raise WorkdirError(
                f"{self.config_file}: missing; start the sweep with its original command, which "
                "writes it again"
            )
        return read_config_file(self.config_file)

    def end(self) -> "End":
        """How it ended; UNFINISHED without a readable trial.json."""
        try:
            return End(**json.loads((self.workdir / END_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return End(UNFINISHED)


class End(NamedTuple):
    """How a trial ended.

    Attributes:
        state: FINISHED, FAILED or UNFINISHED.
        summary: metrics of a finished trial, by name; None where undefined.
        error: error of a failed trial, one line.
    """

    state: str
    summary: dict[str, float | None] = {}  # noqa: RUF012 (never written to)
    error: str = ""

    def write(self, workdir: Path) -> None:
        write_whole(workdir / END_FILE, json.dumps(self._asdict(), indent=2))


def plan_trials(
    tree: ConfigDict, axes: list[Axis], workdir: Path, table: str = ""
) -> list[tuple[Trial, Config]]:
    """All combinations of the axes as configs, checked before anything runs.

    Args:
        tree: config that all trials share.
        axes: see grid.py.
        workdir: folder of the sweep.
        table: 'NAME' or 'NAME:VARIANT' of the paper, if one axis is its rows.

    Raises:
        ConfigError: lists all trials with an invalid config.
    """
    planned, errors = [], []
    combined = product(axes)
    fields = {field: None for settings in combined for field in settings}  # a set with an order
    for settings in combined:
        name = name_of(settings, fields)
        config = copy.deepcopy(tree)
        try:
            config.update_from_flattened_dict(settings)
            trial = Trial(
                name, settings, workdir / name, published(settings, table) if table else {}
            )
            planned.append((trial, from_config_dict(config)))
        except (ConfigError, TypeError, ValueError) as error:
            errors.append(f"{name}: {error}")
    if errors:
        raise ConfigError("\n".join(errors))
    names = [trial.name for trial, _ in planned]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"trials with equal names: {', '.join(sorted(twice))}")
    check_effects(planned)
    return planned


def check_effects(planned: list[tuple[Trial, Config]]) -> None:
    """Prints which trials set fields that have no effect in them.

    Raises:
        ConfigError: a field that the sweep sets has an effect in none of its trials.
    """
    without: dict[str, dict[str, int]] = {}  # field: reason: trials
    for trial, config in planned:
        for field in trial.settings:
            if reason := reason_without_effect(config, field):
                reasons = without.setdefault(field, {})
                reasons[reason] = reasons.get(reason, 0) + 1
    errors = [
        f"config.{field}: the sweep sets it, but it has no effect: {', '.join(reasons)}"
        for field, reasons in without.items()
        if sum(reasons.values()) == sum(field in trial.settings for trial, _ in planned)
    ]
    if errors:
        raise ConfigError("\n".join([*errors, "leave it out, so that no two trials are the same"]))
    for field, reasons in without.items():
        for reason, count in reasons.items():
            print(f"{count} of {len(planned)} trials: config.{field} has no effect: {reason}")


def write_plan(planned: list[tuple[Trial, Config]], workdir: Path) -> list[Trial]:
    """Writes the plan into the workdir of the sweep, or adds to the one that is there.

    A plan with more seeds or values keeps the trials of the one before. The config of a trial whose
    folder was deleted is written again.

    Raises:
        WorkdirError: the workdir has a trial with another config, or one that is not planned.
    """
    path = workdir / PLAN_FILE
    known = {trial.name: trial for trial in read_plan(workdir)} if path.exists() else {}
    _check_extends(known, planned, path)
    new = [
        (trial, config)
        for trial, config in planned
        if trial.name not in known or not trial.has_config()
    ]
    if new:
        with locked(workdir):
            for trial, config in new:
                write_whole(trial.workdir / CONFIG_FILE, to_json(config))
            trials = {t.name: {"settings": t.settings, "paper": t.paper} for t, _ in planned}
            # Written last: a plan that exists is complete.
            write_whole(path, json.dumps({"trials": trials}, indent=2))
    return [trial for trial, _ in planned]


def read_plan(workdir: Path) -> list[Trial]:
    """The trials of a sweep.

    Raises:
        WorkdirError: there is no sweep, or its plan is damaged.
    """
    path = workdir / PLAN_FILE
    if not path.exists():
        raise WorkdirError(
            f"{path}: no such sweep; set --workdir to the folder of a sweep, start one with "
            "--config and --grid, or compare two runs with `retinanet-jax report --compare A B`"
        )
    try:
        trials = json.loads(path.read_text(encoding="utf-8"))["trials"]
        return [
            Trial(name, _tuples(entry["settings"]), workdir / name, entry["paper"])
            for name, entry in trials.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkdirError(
            f"{path}: damaged ({type(error).__name__}: {error}); delete this file and start the "
            "sweep with its original command: finished trials are kept"
        ) from error


def published(settings: Settings, table: str) -> dict[str, Any]:
    """The paper's results for a row of its table (Trial.paper); {} if no row has the settings.

    Args:
        settings: of the trial. Fields that are not in the table (the seed, a shorter schedule) do
            not matter.
        table: as in `plan_trials`.
    """
    name, _, variant = table.partition(":")
    rows = [(row.settings_of(variant), row) for row in TABLES[name].rows]
    fields = {field for known, _ in rows for field in known}
    ours = {field: value for field, value in settings.items() if field in fields}
    for known, row in rows:
        if known == ours:
            numbers = {"AP": row.ap, "AP50": row.ap50, "AP75": row.ap75} | row.also
            numbers = {
                k: round(v / 100, 4) for k, v in numbers.items() if v is not None and k != "ms"
            }
            return {"table": name, "row": row.name, **numbers}
    return {}


def _check_extends(
    known: dict[str, Trial], planned: list[tuple[Trial, Config]], path: Path
) -> None:
    changes = [f"{name} is missing" for name in set(known) - {trial.name for trial, _ in planned}]
    changes += [
        f"{trial.name} has a different config"
        for trial, config in planned
        if trial.name in known and trial.has_config() and trial.config() != config
    ]
    if changes:
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise WorkdirError(
            f"{path}: belongs to a different sweep: {', '.join(sorted(changes)[:5])}{more}; use "
            f"another --workdir, or resume that sweep with --workdir={path.parent} alone"
        )


def _tuples(settings: dict[str, Any]) -> Settings:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
