"""Gather a sweep, finished or not, into a table, a CSV file and a plot.

    retinanet-jax report --workdir=runs/focal

Writes report.md, report.csv and report.svg into the folder of the sweep, as `retinanet-jax sweep`
does at its end, and prints the first.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which sweep."""
    parser.add_argument("--workdir", required=True, type=Path, help="of the sweep")


def run(arguments: argparse.Namespace) -> None:
    """Writes and prints the report."""
    from retinanet_jax.sweep.sweep_report import write_report

    print(write_report(arguments.workdir.expanduser()), end="")
