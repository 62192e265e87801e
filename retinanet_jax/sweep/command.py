"""`retinanet-jax sweep`: from arguments to trials, a launcher and a report."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from retinanet_jax.config.paper_tables import TABLES
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.config.settings_tree import suggest
from retinanet_jax.runtime.preemption import EXIT_CODE, Preempted
from retinanet_jax.runtime.workdir import locked
from retinanet_jax.sweep.grid import Axis, grid_axis, zip_axis
from retinanet_jax.sweep.in_process import run_here
from retinanet_jax.sweep.run_trial import Progress, describe, run_trial
from retinanet_jax.sweep.slurm import SlurmJobs
from retinanet_jax.sweep.sweep_report import write_report
from retinanet_jax.sweep.trials import FINISHED, Trial, plan_trials, read_plan, write_plan
from retinanet_jax.sweep.workers import Workers
from retinanet_jax.training.setup import RunCache

Launcher = Callable[[list[Trial], Progress], None]


def sweep(arguments: argparse.Namespace, workdir: Path, tree: ConfigDict | None) -> None:
    """Runs a sweep; returns if all trials are finished.

    Args:
        arguments: arguments of cli/sweep.py.
        workdir: folder of the sweep.
        tree: config that all trials share; None resumes the sweep in the workdir.

    Raises:
        ConfigError, WorkdirError: before any trial runs, with the fix.
        SystemExit: 1 if trials failed, 75 if a signal stopped the sweep.
    """
    launcher = _launcher(arguments, workdir)
    if tree is None:
        trials = read_plan(workdir)
    else:
        plan = plan_trials(tree, _axes(arguments, tree), workdir, arguments.table)
        trials = write_plan(plan, workdir)
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
        print(f"stopped by {stopped or 'SIGINT'}; the same command resumes", file=sys.stderr)
        sys.exit(EXIT_CODE)
    if not finished:
        sys.exit(1)


def command_of(trial: Trial) -> str:
    """A shell command that runs one trial, from any folder."""
    words = (sys.executable, "-m", "retinanet_jax", "sweep")
    words += (f"--workdir={trial.workdir.parent.resolve()}", f"--trial={trial.name}")
    return shlex.join(words)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for arguments that exclude or require each other."""
    if arguments.config and arguments.table:
        raise ConfigError("--config and --table: set only one of them")
    varied = arguments.grid or arguments.zip or arguments.seeds or arguments.passed_on
    if varied and not (arguments.config or arguments.table):
        raise ConfigError("--grid, --zip, --seeds and --config.FIELD need --config or --table")
    if arguments.seeds < 0:
        raise ConfigError(f"--seeds={arguments.seeds}: must be at least 1")
    if arguments.workers < 0:
        raise ConfigError(f"--workers={arguments.workers}: must be at least 1")
    if arguments.launcher == "workers" and not arguments.workers:
        raise ConfigError("--launcher=workers: set --workers=N")
    if arguments.workers and arguments.launcher == "here":
        raise ConfigError("--workers needs --launcher=workers or --launcher=slurm")
    if arguments.slurm and arguments.launcher != "slurm":
        raise ConfigError("--slurm needs --launcher=slurm")


def base_experiment(arguments: argparse.Namespace) -> str:
    """The experiment that all trials share, from --config or --table; '' if neither is set.

    Raises:
        ConfigError: no such table.
    """
    if not arguments.table:
        return arguments.config
    name, colon, variant = arguments.table.partition(":")
    if name not in TABLES:
        raise ConfigError(f"--table={name}: not a table of the paper; {suggest(name, TABLES)}")
    experiment = name if name == "prior" else f"table{name}"
    return f"paper/{experiment}{colon}{variant}"


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
        return Workers(workdir, arguments.workers)
    if arguments.launcher == "slurm":
        return SlurmJobs(workdir, arguments.workers, arguments.slurm)
    return run_here


def _run_one(name: str, trials: list[Trial]) -> bool:
    """Runs one trial in this process; whether it finished."""
    by_name = {trial.name: trial for trial in trials}
    if name not in by_name:
        raise ConfigError(f"--trial={name}: no such trial; {suggest(name, by_name)}")
    end = run_trial(by_name[name], RunCache())
    print(f"{end.state}: {name}: {describe(end)}")
    return end.state == FINISHED


def _run_all(launcher: Launcher, workdir: Path, trials: list[Trial], left: list[Trial]) -> bool:
    """Runs the trials that are left, and reports; whether all trials are finished."""
    with locked(workdir):
        launcher(left, Progress(trials))
        print(write_report(workdir))
    return all(trial.end().state == FINISHED for trial in trials)
