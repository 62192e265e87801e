"""Writes a trained detector as one file that runs without this package."""

import argparse
from pathlib import Path

from retinanet_jax.data.report import DataError
from retinanet_jax.export.program import (
    choose_canvas,
    describe_program,
    make_program,
    read_trained,
)
from retinanet_jax.export.stablehlo import to_stablehlo
from retinanet_jax.workdir import write_whole

FORMATS = {"stablehlo": to_stablehlo}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the subcommand."""
    parser.add_argument("--format", required=True, help=" or ".join(FORMATS))
    parser.add_argument(
        "--model", required=True, help="workdir of a training, or a public RetinaNet: path or URL"
    )
    parser.add_argument("--out", required=True, type=Path, help="file to write")
    parser.add_argument(
        "--canvas",
        default="",
        metavar="HEIGHTxWIDTH",
        help="input of the network in pixels, into which pictures are fitted; by default the "
        "square that holds pictures of every shape",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the file, whole or not at all, and says what is in it.

    Raises:
        DataError: an argument that cannot be, or a file that cannot be written.
        CheckpointError, WeightsError: there is no detector at --model.
    """
    if arguments.format not in FORMATS:
        mend = f"write {' or '.join(FORMATS)}"
        raise DataError("format", "--format", repr(arguments.format), "is not known", mend)
    trained = read_trained(arguments.model)
    canvas = choose_canvas(arguments.canvas, trained.config)
    program = make_program(trained, canvas)
    content = FORMATS[arguments.format](program, describe_program(trained, canvas))
    path = arguments.out.expanduser()
    try:
        write_whole(path, content)
    except OSError as error:
        what, mend = f"cannot be written: {error.strerror}", "name a file that you may write"
        raise DataError("out", "--out", str(path), what, mend) from error
    height, width = canvas
    print(f"{path}: {len(content) / 1e6:.1f} MB; pictures are fitted into {height}x{width} pixels")
