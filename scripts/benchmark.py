"""Compares time and memory of this package with other programs, in turns in one run.

    python scripts/benchmark.py NAME [--json=FILE] [--rounds=7]

NAME is data, loss, postprocess, nms, eval, compile, start, infer, train, sweep, detect, gpu or tpu.
Prints a Markdown table as in docs/performance.md; --json also writes its rows. The docstrings of
the modules in scripts/benchmarks/ define what each benchmark measures and the peers it compares
with. A peer that cannot be imported is named and left out.
"""

import argparse
from pathlib import Path

from benchmarks import (
    data,
    detect,
    evaluation,
    first_detection,
    gpu,
    infer,
    loss,
    nms,
    postprocess,
    startup,
    sweep,
    tpu,
    train,
)
from benchmarks.rows import print_table, write_json

# Each has add_arguments(parser) and run(arguments) -> list of rows.
BENCHMARKS = {
    "data": data,
    "loss": loss,
    "postprocess": postprocess,
    "nms": nms,
    "eval": evaluation,
    "compile": startup,
    "start": first_detection,
    "infer": infer,
    "train": train,
    "sweep": sweep,
    "detect": detect,
    "gpu": gpu,
    "tpu": tpu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="name", required=True)
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(name, description=module.__doc__.splitlines()[0])
        command.add_argument("--json", type=Path, help="file to which the rows are written")
        command.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
        module.add_arguments(command)
    arguments = parser.parse_args()
    rows = BENCHMARKS[arguments.name].run(arguments)
    print_table(rows)
    if arguments.json:
        write_json(rows, arguments.json)


if __name__ == "__main__":
    main()
