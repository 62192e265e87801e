"""Summarize a sweep, finished or not, or compare two sweeps or runs.

    retinanet-jax report --workdir=runs/focal
    retinanet-jax report --compare runs/focal runs/focal_adamw

The first command writes report.md, report.csv, steps.csv, report.svg and steps.svg to the folder of
the sweep, as `retinanet-jax sweep` does at its end, and prints report.md. The second command prints
the differences between trials with equal settings and seed, with a paired t-test, and writes
nothing.
"""

import argparse
import contextlib


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder of the sweep, or two folders."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", help="folder of the sweep")
    which.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="folders of two sweeps or runs to compare"
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes and prints the report, or prints the comparison."""
    from retinanet_jax.runtime.workdir import disk_errors
    from retinanet_jax.runtime.workdir_download import local_workdir, without_checkpoints
    from retinanet_jax.sweep.seed_comparison import compare
    from retinanet_jax.sweep.sweep_report import write_report

    if arguments.compare:
        with contextlib.ExitStack() as stack:
            folders = [
                stack.enter_context(local_workdir(folder, without_checkpoints))
                for folder in arguments.compare
            ]
            print(compare(*folders, names=arguments.compare), end="")
        return
    with local_workdir(arguments.workdir, without_checkpoints) as workdir, disk_errors(workdir):
        print(write_report(workdir), end="")
