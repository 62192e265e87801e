"""Gathers a sweep, finished or not, into a table, a CSV file and a plot.

    python scripts/report.py --workdir=runs/focal

Writes report.md, report.csv and report.svg into the folder of the sweep, as `retinanet-jax sweep`
does at its end, and prints the first.
"""

import argparse
import sys
from pathlib import Path

from retinanet_jax.sweep.report import write_report
from retinanet_jax.workdir import WorkdirError


def main() -> None:
    """Writes and prints the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=Path, help="of the sweep")
    try:
        print(write_report(parser.parse_args().workdir.expanduser()), end="")
    except WorkdirError as error:
        sys.exit(f"WorkdirError: {error}")


if __name__ == "__main__":
    main()
