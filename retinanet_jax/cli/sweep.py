"""Train many runs with different settings; report a table and a plot.

    retinanet-jax sweep --config=shapes --workdir=runs/focal \\
        --grid loss.gamma=0,0.5,1,2,5 --grid loss.alpha=.25,.5,.75 --seeds=3
    retinanet-jax sweep --config=shapes --workdir=runs/pairs \\
        --zip loss.gamma=0,1,2 loss.alpha=.75,.25,.25
    retinanet-jax sweep --table=1b:small --workdir=runs/table1b
    retinanet-jax sweep --workdir=runs/focal

The trials are all combinations of --grid, --zip, --table and --seeds; the fields of a --zip change
together. The last command, or the original command, resumes a sweep: finished trials are kept, and
failed ones run again. All flags of `train` that set the config apply to all trials.
"""

import argparse
from pathlib import Path

PASSES_ON = True
LAUNCHERS = ("here", "workers", "slurm")
# Flags of `train` for a single run.
NOT_FOR_SWEEPS = ("mode", "replay", "coordinator", "num_processes", "process_id")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What varies, and where it runs."""
    add = parser.add_argument
    add("--workdir", required=True, type=Path, help="folder for the trials and the report")
    add("--config", default="", help="experiment: NAME or FILE.py, with :VARIANT")
    add("--table", default="", help="run the rows of a table of the paper: 1b or 1b:small")
    varied = {"action": "append", "default": [], "metavar": "FIELD=VALUE,VALUE"}
    add("--grid", **varied, help="a field and its values; repeat for several fields")
    add("--zip", **varied, nargs="+", help="fields that change together, equal in length")
    add("--seeds", type=int, default=0, help="run each trial with seeds 0 to SEEDS-1")
    add("--launcher", default="here", choices=LAUNCHERS, help="default: in this process")
    add("--workers", type=int, default=0, help="number of processes, or of Slurm jobs")
    add(
        "--slurm",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of submitit: slurm_partition=gpu, slurm_gres=gpu:1, timeout_min=240",
    )
    add("--print_commands", action="store_true", help="print a command per unfinished trial")
    add("--trial", default="", help="run only this trial of the plan")


def run(arguments: argparse.Namespace) -> None:
    """Plans, runs the trials that are left, reports; exits with 1 if trials failed."""
    from retinanet_jax.cli.config_arguments import read_config
    from retinanet_jax.config.settings import ConfigError
    from retinanet_jax.runtime.user_folders import expand_user
    from retinanet_jax.sweep.command import base_experiment, check_arguments, sweep

    check_arguments(arguments)
    for word in arguments.passed_on:
        if word.lstrip("-").partition("=")[0] in NOT_FOR_SWEEPS:
            raise ConfigError(
                f"{word}: not supported by sweep, whose trials run in one process each"
            )
    arguments.config = base_experiment(arguments)
    tree = read_config("sweep", arguments) if arguments.config else None
    sweep(arguments, expand_user(arguments.workdir), tree)
