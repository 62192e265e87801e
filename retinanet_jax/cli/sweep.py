"""Train many runs that differ in some fields, and make a table and a plot of them.

    retinanet-jax sweep --config=experiments/shapes.py --workdir=runs/focal \\
        --grid loss.gamma=0,0.5,1,2,5 --grid loss.alpha=.25,.5,.75 --seeds=3
    retinanet-jax sweep --config=experiments/shapes.py --workdir=runs/pairs \\
        --zip loss.gamma=0,1,2 loss.alpha=.75,.25,.25
    retinanet-jax sweep --table=1b:small --workdir=runs/table1b
    retinanet-jax sweep --workdir=runs/focal

Trials are all combinations of --grid, --zip, --table and --seeds; fields of --zip change together.
The last command, or the same one again, goes on where a sweep was killed: trials that are finished
stay, those that failed are tried again. --config.SECTION.FIELD=VALUE sets a field of all trials.
"""

import argparse
from pathlib import Path

PASSES_ON = True
LAUNCHERS = ("here", "workers", "slurm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What varies, and where it runs."""
    add = parser.add_argument
    add("--workdir", required=True, type=Path, help="gets a folder for each trial, and the report")
    add("--config", default="", help="experiment file, or with a variant: FILE.py:small")
    add("--table", default="", help="trials are the rows of a table of the paper: 1b or 1b:small")
    varied = {"action": "append", "default": [], "metavar": "FIELD=VALUE,VALUE"}
    add("--grid", **varied, help="a field and its values; may be given several times")
    add("--zip", **varied, nargs="+", help="fields that change together, with as many values")
    add("--seeds", type=int, default=0, help="runs each trial with the seeds 0 to SEEDS-1")
    add("--launcher", default="here", choices=LAUNCHERS, help="where: in this process (here)")
    add("--workers", type=int, default=0, help="processes of --launcher=workers")
    add(
        "--slurm",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of submitit, such as slurm_partition=gpu, slurm_gres=gpu:1, timeout_min=240",
    )
    add("--print_commands", action="store_true", help="a command for each trial left; runs none")
    add("--trial", default="", help="runs this one of the plan alone, as --print_commands says")


def run(arguments: argparse.Namespace) -> None:
    """Plans, runs what is left to run, reports; exits with 1 where trials failed."""
    from retinanet_jax.sweep.command import sweep  # only now, for it imports all of the package

    sweep(arguments)
