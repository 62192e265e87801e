"""Detect objects in images, folders and videos; write them drawn, as COCO JSON, CSV, YOLO or VOC.

    retinanet-jax detect photo.jpg --model=runs/shapes --out=found
    retinanet-jax detect photos/ clip.mp4 --model=runs/mine --out=found --threshold=0.5
    retinanet-jax detect 'photos/**/*.jpg' --model=retinanet_resnet50_fpn_coco-eeacb38b.pth \\
        --out=found --classes=person,dog --format=csv
    retinanet-jax detect rtsp://192.168.0.20/live --model=runs/mine --out=found --frames=500

writes to the folder --out:

    images/               each image and video with its boxes, in the folders of the originals
    detections.coco.json  a COCO dataset, with a score for each annotation
    detections.csv        file, class, score, x1, y1, x2, y2 in pixels; frame (from 0) of a video
    yolo/, voc/           with --format=yolo,voc: a copy of the images with YOLO labels or Pascal
                          VOC XML, to correct in an annotation tool or to train on

Boxes are in pixels of the image as shown, rotated by its EXIF orientation. If --model is a workdir,
the best checkpoint is used. The first image of each shape takes longer, because the network is
compiled; later starts find it in the cache. An input can also be the URL of an image (HTTP), the
number of a webcam, such as 0, or the URL of a video that OpenCV reads (RTSP, HTTP); Ctrl-C or
--frames ends the latter two. Inputs that cannot be read are skipped and listed at the end with the
reasons, and the exit code is 3.
"""

import argparse
import sys
from pathlib import Path

from retinanet_jax.cli.model_arguments import add_model_arguments, read_model

FORMATS = ("images", "coco", "csv", "yolo", "voc")
DEFAULT_FORMATS = FORMATS[:3]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Inputs, model, outputs and thresholds."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="image, video, folder, 'pattern', URL, webcam")
    add_model_arguments(parser)
    add("--out", type=Path, required=True, help="folder for the results")
    add("--threshold", type=float, default=0.4, help="lowest score, default 0.4")
    add("--classes", type=_list, help="only these classes, by name: person,dog")
    add(
        "--max",
        type=int,
        help="maximum number of detections per image; default: the model's, usually 100",
    )
    add(
        "--format",
        type=_formats,
        default=DEFAULT_FORMATS,
        help="formats of the results; default: images,coco,csv; also yolo and voc",
    )
    add("--flip", action="store_true", help="also detect in the mirrored image, and merge")
    add("--scales", type=numbers, default=(1.0,), help="scales to detect at and merge: 1,1.5")
    add("--tile", type=int, help="also detect in square tiles of this side, and merge: 640")
    add(
        "--overlap",
        type=float,
        default=0.2,
        help="overlap of the tiles, as a fraction of their side; default 0.2",
    )
    add(
        "--merge",
        choices=("nms", "weighted"),
        default="nms",
        help="how to merge views and tiles: nms, the default, or weighted boxes",
    )
    add("--frames", type=_count, help="maximum frames per video, URL or webcam; default: all")
    add("--batch_size", type=int, help="images per batch; default 8, or 1 on a CPU")
    add(
        "--canvas",
        choices=("few", "tight"),
        default="few",
        help="few, the default, pads images to two shapes and compiles twice; tight pads as little "
        "as possible and compiles for each image size, so that imported models detect exactly as "
        "in their own projects",
    )


def run(arguments: argparse.Namespace) -> None:
    """Loads the model and detects."""
    from retinanet_jax.cli.dataset_outputs import check_new
    from retinanet_jax.cli.detect_files import Job, detect
    from retinanet_jax.cli.inputs import find_inputs
    from retinanet_jax.cli.outputs import check_writable

    out = arguments.out.expanduser()
    inputs = find_inputs(arguments.inputs, *(out / name for name in ("images", "yolo", "voc")))
    check_writable(out)
    check_new(out, arguments.format)
    detector = make_detector(arguments)
    job = Job(
        inputs=inputs,
        out=out,
        formats=arguments.format,
        options={
            "threshold": arguments.threshold,
            "classes": arguments.classes,
            "max_detections": arguments.max,
            "flip": arguments.flip,
            "scales": arguments.scales,
            "tile": arguments.tile,
            "overlap": arguments.overlap,
            "merge": arguments.merge,
        },
        frames=arguments.frames,
    )
    if failed := detect(_with_limits(detector, arguments), job):
        raise SystemExit(_report(failed))


def make_detector(arguments: argparse.Namespace):
    """The Detector of --model."""
    from retinanet_jax.config.data_section import DataConfig
    from retinanet_jax.inference.detector import Detector
    from retinanet_jax.runtime.compilation_cache import keep_compilations
    from retinanet_jax.runtime.traced_programs import keep_traced_programs

    trained = read_model(arguments)
    # Not the cache_dir of its config: a model of somebody else must not name a folder of programs.
    keep_traced_programs(keep_compilations(DataConfig.cache_dir))
    return Detector(*trained, batch_size=arguments.batch_size, canvas=arguments.canvas)


def _with_limits(detector, arguments: argparse.Namespace):
    """The detector, with the limits of its compiled function extended to --threshold and --max."""
    limits, more = detector.config.postprocess, {}
    if 0 <= arguments.threshold < limits.score_threshold:
        more["score_threshold"] = arguments.threshold
    if arguments.max and arguments.max > limits.max_detections:
        more["max_detections"] = arguments.max
    return detector.with_postprocess(**more) if more else detector


def _report(failed: list[Exception]) -> int:
    """Prints the inputs that could not be read; returns the exit code."""
    print(f"{len(failed)} of the inputs could not be read:", file=sys.stderr)
    for error in failed:
        print(f"  {error}", file=sys.stderr)
    return 3


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _list(text))
    except ValueError as error:
        what = f"{text!r} is not a list of numbers such as 1,1.5"
        raise argparse.ArgumentTypeError(what) from error


def _formats(text: str) -> tuple[str, ...]:
    formats = _list(text)
    for name in formats or ("",):
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(FORMATS)}")
    return formats
