"""Summarize a sweep, finished or not, or compare two sweeps or runs.

    retinanet-jax report --workdir=runs/focal
    retinanet-jax report --compare runs/focal runs/focal_adamw

The first writes report.md, report.csv, steps.csv and report.svg into the folder of the sweep, as
`retinanet-jax sweep` does at its end, and prints report.md. The second prints the differences of
trials with equal settings and seed, with a paired t-test, and writes nothing.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder of the sweep, or two folders."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", type=Path, help="folder of the sweep")
    which.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="folders of sweeps or runs"
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes and prints the report, or prints the comparison."""
    from retinanet_jax.runtime.user_folders import expand_user
    from retinanet_jax.runtime.workdir import disk_errors
    from retinanet_jax.sweep.seed_comparison import compare
    from retinanet_jax.sweep.sweep_report import write_report

    if arguments.compare:
        print(compare(*map(expand_user, arguments.compare)), end="")
        return
    workdir = expand_user(arguments.workdir)
    with disk_errors(workdir):
        print(write_report(workdir), end="")
