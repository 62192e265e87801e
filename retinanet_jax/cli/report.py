"""Summarize a sweep, finished or not, in a table, a CSV file and a plot.

    retinanet-jax report --workdir=runs/focal

Writes report.md, report.csv and report.svg into the folder of the sweep, as `retinanet-jax sweep`
does at its end, and prints report.md.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder of the sweep."""
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the sweep")


def run(arguments: argparse.Namespace) -> None:
    """Writes and prints the report."""
    from retinanet_jax.runtime.user_folders import expand_user
    from retinanet_jax.runtime.workdir import disk_errors
    from retinanet_jax.sweep.sweep_report import write_report

    workdir = expand_user(arguments.workdir)
    with disk_errors(workdir):
        print(write_report(workdir), end="")
