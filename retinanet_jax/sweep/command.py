"""The command `retinanet-jax sweep`: from its arguments to trials, a launcher and a report."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from retinanet_jax.config.experiment_files import load_experiment
from retinanet_jax.config.paper_tables import TABLES, base_config
from retinanet_jax.config.settings import ConfigError, suggest
from retinanet_jax.runtime.preemption import EXIT_CODE, Preempted
from retinanet_jax.runtime.workdir import locked
from retinanet_jax.sweep.grid import Axis, grid_axis, parse_field, zip_axis
from retinanet_jax.sweep.in_process import run_here
from retinanet_jax.sweep.slurm import Slurm
from retinanet_jax.sweep.sweep_report import write_report
from retinanet_jax.sweep.trial import Progress, describe, run_trial
from retinanet_jax.sweep.trials import FINISHED, Trial, plan_trials, read_plan, write_plan
from retinanet_jax.sweep.workers import Workers
from retinanet_jax.training.setup import RunCache

Launcher = Callable[[list[Trial], Progress], None]


def sweep(arguments: argparse.Namespace) -> None:
    """Does what the arguments of cli/sweep.py say; returns if all trials are finished.

    Raises:
        ConfigError, WorkdirError: before anything runs, with the fix.
        SystemExit: 1 where trials failed, 75 where a signal asked to stop.
    """
    _check(arguments)
    workdir = arguments.workdir.expanduser()
    launcher = _launcher(arguments, workdir)
    trials = planned(arguments, workdir)
    left = [trial for trial in trials if trial.end().state != FINISHED]
    if arguments.print_commands:
        print("\n".join(command_of(trial) for trial in left))
        return
    try:
        if arguments.trial:
            finished = _run_one(arguments.trial, trials)
        else:
            finished = _run_all(launcher, workdir, trials, left)
    except (Preempted, KeyboardInterrupt) as stopped:
        print(f"stopped by {stopped or 'SIGINT'}; the same command goes on", file=sys.stderr)
        sys.exit(EXIT_CODE)
    if not finished:
        sys.exit(1)


def planned(arguments: argparse.Namespace, workdir: Path) -> list[Trial]:
    """The trials that the arguments make, or of the plan that lies in the workdir."""
    if not (arguments.config or arguments.table):
        return read_plan(workdir)
    tree = _tree(arguments)
    return write_plan(plan_trials(tree, _axes(arguments, tree), workdir, arguments.table), workdir)


def command_of(trial: Trial) -> str:
    """A line for a shell that runs one trial, from any folder."""
    words = (sys.executable, "-m", "retinanet_jax", "sweep")
    words += (f"--workdir={trial.workdir.parent.resolve()}", f"--trial={trial.name}")
    return shlex.join(words)


def _check(arguments: argparse.Namespace) -> None:
    """Arguments that do not go together."""
    if arguments.config and arguments.table:
        raise ConfigError("--config and --table both say what the trials have in common; write one")
    varied = arguments.grid or arguments.zip or arguments.seeds or arguments.passed_on
    if varied and not (arguments.config or arguments.table):
        raise ConfigError("--grid, --zip, --seeds and --config.FIELD need --config or --table")
    if arguments.seeds < 0:
        raise ConfigError(f"--seeds={arguments.seeds}: must be 1 or more")
    if (arguments.workers > 0) != (arguments.launcher == "workers"):
        raise ConfigError("--workers=N, from 1, and --launcher=workers belong together")
    if arguments.slurm and arguments.launcher != "slurm":
        raise ConfigError("--slurm needs --launcher=slurm")


def _tree(arguments: argparse.Namespace) -> ConfigDict:
    """The config that the trials have in common."""
    if arguments.config:
        tree = load_experiment(arguments.config)
    else:
        name, _, variant = arguments.table.partition(":")
        tree = base_config(name, variant)
    for text in arguments.passed_on:
        if not text.startswith("--config.") or "=" not in text:
            raise ConfigError(f"{text}: is not an argument; --help lists them")
        field, values = parse_field(text.removeprefix("--config."), tree)
        if len(values) > 1:
            raise ConfigError(f"{text}: has several values; --grid {field}=... varies a field")
        tree.update_from_flattened_dict({field: values[0]})
    return tree


def _axes(arguments: argparse.Namespace, tree: ConfigDict) -> list[Axis]:
    axes: list[Axis] = []
    if arguments.table:
        name, _, variant = arguments.table.partition(":")
        axes.append([row.settings_of(variant) for row in TABLES[name].rows])
    axes += [zip_axis(texts, tree) for texts in arguments.zip]
    axes += [grid_axis(text, tree) for text in arguments.grid]
    if arguments.seeds:
        axes.append([{"seed": seed} for seed in range(arguments.seeds)])
    return axes


def _launcher(arguments: argparse.Namespace, workdir: Path) -> Launcher:
    if arguments.launcher == "workers":
        return Workers(arguments.workers)
    if arguments.launcher == "slurm":
        return Slurm(workdir, arguments.slurm)
    return run_here


def _run_one(name: str, trials: list[Trial]) -> bool:
    """Runs one trial of the plan in this process; whether it is finished then."""
    by_name = {trial.name: trial for trial in trials}
    if name not in by_name:
        raise ConfigError(f"--trial={name}: there is no such trial; {suggest(name, by_name)}")
    end = run_trial(by_name[name], RunCache())
    print(f"{end.state}: {name}: {describe(end)}")
    return end.state == FINISHED


def _run_all(launcher: Launcher, workdir: Path, trials: list[Trial], left: list[Trial]) -> bool:
    """Runs what is left to run, and reports; whether all trials are finished then."""
    with locked(workdir):
        launcher(left, Progress(trials))
        print(write_report(workdir))
    return all(trial.end().state == FINISHED for trial in trials)
