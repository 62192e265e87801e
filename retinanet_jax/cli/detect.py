"""Detect objects in images, folders and videos; write them drawn, as COCO JSON and as CSV.

    retinanet-jax detect photo.jpg --model=runs/shapes --out=found
    retinanet-jax detect photos/ clip.mp4 --model=runs/mine --out=found --threshold=0.5
    retinanet-jax detect 'photos/**/*.jpg' --model=retinanet_resnet50_fpn_coco-eeacb38b.pth \\
        --out=found --classes=person,dog --format=csv

writes to the folder --out:

    images/        each image and video with its boxes, below the same folders as the originals
    detections.json  a COCO dataset, with a score for each annotation
    detections.csv   file, class, score, x1, y1, x2, y2 in pixels; of a video, also the frame from 0

The first image of each shape takes longer: the network is compiled for it, once; the next start
finds that done. Files that cannot be read are listed at the end, with the reasons, and the exit
code is 3; all others are done.
"""

import argparse
import sys
from pathlib import Path

FORMATS = ("images", "coco", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Inputs, model, what is written and what is kept of the detections."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="image, video, folder, or 'pattern'")
    add("--model", required=True, help="workdir of a run; or a RetinaNet: file, URL, hf:// address")
    add("--out", type=Path, required=True, help="folder that is written")
    add("--threshold", type=float, default=0.4, help="lowest score, default 0.4")
    add("--classes", type=_list, help="only these, by name: person,dog")
    add("--max", type=int, help="at most so many of an image; default: the model's, mostly 100")
    add("--format", type=_formats, default=FORMATS, help="default: images,coco,csv")
    add("--flip", action="store_true", help="look at the mirrored image too, and merge")
    add("--scales", type=numbers, default=(1.0,), help="sizes to look at, and merge: 1,1.5")
    add("--batch_size", type=int, help="images at a time; default 8, on a CPU 1")
    add(
        "--canvas",
        choices=("few", "tight"),
        default="few",
        help="few, the default, pads images to two shapes and compiles twice; tight pads as little "
        "as it can and compiles for every new size: of imported models, the same detections as "
        "theirs to the last digit",
    )


def run(arguments: argparse.Namespace) -> None:
    """Loads the model and detects."""
    from absl import logging

    from retinanet_jax.cli.detect_files import Job, detect
    from retinanet_jax.cli.inputs import find_inputs
    from retinanet_jax.inference.detector import Detector
    from retinanet_jax.runtime.compilation_cache import keep_compilations

    logging.set_verbosity(logging.ERROR)  # Orbax warns of files that it does not need
    out = arguments.out.expanduser()
    inputs = find_inputs(arguments.inputs, without=out / "images")
    detector = Detector.from_checkpoint(
        arguments.model, batch_size=arguments.batch_size, canvas=arguments.canvas
    )
    keep_compilations(detector.config.data.cache_dir)
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
        },
    )
    if failed := detect(_giving_enough(detector, arguments), job):
        raise SystemExit(_tell(failed))


def _giving_enough(detector, arguments: argparse.Namespace):
    """The detector, or where it gives less than was asked for, one that gives more."""
    limits, more = detector.config.postprocess, {}
    if 0 <= arguments.threshold < limits.score_threshold:
        more["score_threshold"] = arguments.threshold
    if arguments.max and arguments.max > limits.max_detections:
        more["max_detections"] = arguments.max
    return detector.with_postprocess(**more) if more else detector


def _tell(failed: list[Exception]) -> int:
    """Prints what could not be read; returns the exit code."""
    print(f"{len(failed)} of the inputs could not be read:", file=sys.stderr)
    for error in failed:
        print(f"  {error}", file=sys.stderr)
    return 3


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in _list(text))


def _formats(text: str) -> tuple[str, ...]:
    formats = _list(text)
    for name in formats or ("",):
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(FORMATS)}")
    return formats
