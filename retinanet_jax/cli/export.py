"""Write a trained detector as one file that runs without this package.

    retinanet-jax export --format=stablehlo --model=runs/shapes --out=shapes.stablehlo
    retinanet-jax export --format=onnx --model=runs/shapes --out=shapes.onnx --canvas=128x128
    retinanet-jax export --format=onnx --model=runs/shapes --out=network.onnx --preprocess=none \\
        --nms=none
    retinanet-jax export --format=litert --model=runs/shapes --out=network.tflite \\
        --preprocess=none --nms=none

StableHLO runs with JAX alone on CPU, CUDA and TPU; ONNX runs with onnxruntime. Both take images of
any size. docs/export.md shows how to run them. If --model is a workdir, the best checkpoint is
exported. --preprocess=none leaves out resizing, and --nms=none also leaves out NMS; together they
give the plain network for TensorRT, OpenVINO and LiteRT. LiteRT supports only this network.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from retinanet_jax.cli.model_arguments import add_model_arguments, read_model

FORMATS = ("stablehlo", "onnx", "litert")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the subcommand."""
    parser.add_argument("--format", required=True, help=" or ".join(FORMATS))
    add_model_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, help="file to write")
    parser.add_argument(
        "--canvas",
        default="",
        metavar="HEIGHTxWIDTH",
        help="size of the network's input in pixels, to which images are resized and padded; "
        "default: for stablehlo the sizes that Detector uses, one for landscape and one for "
        "portrait images; for the others the square that holds both",
    )
    parser.add_argument(
        "--preprocess",
        choices=("resize", "none"),
        default="resize",
        help="none: the input is float32 and already has the size of the canvas",
    )
    parser.add_argument(
        "--nms",
        choices=("class", "none"),
        default="class",
        help="none, with --preprocess=none: output the boxes and scores of all anchors",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the file, whole or not at all, and prints its size and canvases.

    Raises:
        DataError: an invalid argument, or a file that cannot be written.
        CheckpointError, WeightsError: there is no detector at --model.
    """
    from retinanet_jax.cli.outputs import check_writable
    from retinanet_jax.data.data_errors import DataError
    from retinanet_jax.export.plain_network import (
        describe_network,
        make_network_program,
        network_arguments,
    )
    from retinanet_jax.export.program import (
        choose_canvases,
        compare_with_detector,
        describe_program,
        largest_of,
        make_program,
        program_arguments,
    )
    from retinanet_jax.runtime.workdir import write_whole

    if arguments.nms == "none" and arguments.preprocess != "none":
        what, fix = "needs the network without resizing", "add --preprocess=none"
        raise DataError("nms", "--nms", "'none'", what, fix)
    if arguments.format == "litert" and arguments.nms != "none":
        what, fix = "supports only the plain network", "add --preprocess=none --nms=none"
        raise DataError("format", "--format", "'litert'", what, fix)
    write = _writer(arguments.format)
    path = arguments.out.expanduser()
    if path.is_dir():
        raise DataError("out", "--out", str(path), "is a folder", "name a file in it")
    check_writable(path.parent)
    trained = read_model(arguments)
    canvases = choose_canvases(arguments.canvas, trained.config)
    if arguments.format != "stablehlo":  # their runtimes would hold one network per canvas
        canvases = [largest_of(canvases)]
    source, nms = Path(arguments.model).name, arguments.nms != "none"
    try:
        if arguments.preprocess == "none":
            canvases = [largest_of(canvases)]
            described = describe_network(trained, canvases[0], source, nms=nms)
            program = make_network_program(trained, canvases[0], nms=nms)
            content = write(program, network_arguments(canvases[0]), described)
        else:
            described = describe_program(trained, canvases, source)
            content = write(make_program(trained, canvases), program_arguments(), described)
    except NotImplementedError as error:
        what = f"does not support this network ({error})"
        raise DataError("format", "--format", "'onnx'", what, "use stablehlo") from error
    try:
        write_whole(path, content)
    except OSError as error:
        what, fix = f"cannot be written: {error.strerror}", "use a file that you can write"
        raise DataError("out", "--out", str(path), what, fix) from error
    shapes = " or ".join(f"{height}x{width}" for height, width in canvases)
    fitted = "are" if arguments.preprocess == "none" else "are resized to fit"
    print(f"{path}: {len(content) / 1e6:.1f} MB; images {fitted} {shapes} pixels")
    if not arguments.canvas and (note := compare_with_detector(canvases, trained.config)):
        print(note)
    if arguments.format == "stablehlo":
        from retinanet_jax.export.stablehlo import READABLE_WITH

        print(f"readable with {READABLE_WITH}; keep the model so that you can export it again")


def _writer(name: str) -> Callable[..., bytes]:
    """The function from (program, metadata) to the content of the file."""
    from retinanet_jax.data.data_errors import DataError

    if name not in FORMATS:
        fix = f"use one of {', '.join(FORMATS)}"
        raise DataError("format", "--format", repr(name), "is not supported", fix)
    if name == "stablehlo":
        from retinanet_jax.export.stablehlo import to_stablehlo

        return to_stablehlo
    try:
        if name == "litert":
            from retinanet_jax.export.litert import to_litert

            return to_litert
        from retinanet_jax.export.onnx import to_onnx
    except ImportError as error:
        what, fix = f"cannot be written ({error})", f"pip install 'retinanet_jax[{name}]'"
        raise DataError("format", "--format", repr(name), what, fix) from error
    return to_onnx
