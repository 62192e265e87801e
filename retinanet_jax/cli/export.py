"""Write a trained detector as one file that runs without this package.

    retinanet-jax export --format=stablehlo --model=runs/shapes --out=shapes.stablehlo
    retinanet-jax export --format=onnx --model=runs/shapes --out=shapes.onnx --canvas=128x128

StableHLO runs with JAX alone on CPU, CUDA and TPU, ONNX with onnxruntime; images of any size go
in. docs/export.md has the lines that run them.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

FORMATS = ("stablehlo", "onnx")


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
        help="input of the network in pixels, into which images are fitted; by default "
        "those of the Detector, one for landscapes and one for portraits",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the file, whole or not at all, and says what is in it.

    Raises:
        DataError: an argument that cannot be, or a file that cannot be written.
        CheckpointError, WeightsError: there is no detector at --model.
    """
    from retinanet_jax.data.data_errors import DataError
    from retinanet_jax.export.program import (
        choose_canvases,
        describe_program,
        largest_of,
        make_program,
    )
    from retinanet_jax.inference.predict import read_trained
    from retinanet_jax.runtime.workdir import write_whole

    write = _writer(arguments.format)
    trained = read_trained(arguments.model)
    canvases = choose_canvases(arguments.canvas, trained.config)
    if arguments.format == "onnx":  # its runtimes would hold a network for each
        canvases = [largest_of(canvases)]
    source = Path(arguments.model).name
    described = describe_program(trained, canvases, source)
    try:
        content = write(make_program(trained, canvases), described)
    except NotImplementedError as error:
        what = f"cannot hold this network ({error})"
        raise DataError("format", "--format", "'onnx'", what, "write stablehlo") from error
    path = arguments.out.expanduser()
    try:
        write_whole(path, content)
    except OSError as error:
        what, fix = f"cannot be written: {error.strerror}", "name a file that you may write"
        raise DataError("out", "--out", str(path), what, fix) from error
    shapes = " or ".join(f"{height}x{width}" for height, width in canvases)
    print(f"{path}: {len(content) / 1e6:.1f} MB; images are fitted into {shapes} pixels")


def _writer(name: str) -> Callable[..., bytes]:
    """From (program, metadata) to the content of the file."""
    from retinanet_jax.data.data_errors import DataError

    if name not in FORMATS:
        fix = f"write {' or '.join(FORMATS)}"
        raise DataError("format", "--format", repr(name), "is not known", fix)
    if name == "stablehlo":
        from retinanet_jax.export.stablehlo import to_stablehlo

        return to_stablehlo
    try:
        from retinanet_jax.export.onnx import to_onnx
    except ImportError as error:
        what, fix = f"cannot be written ({error})", "pip install 'retinanet_jax[onnx]'"
        raise DataError("format", "--format", repr(name), what, fix) from error
    return to_onnx
