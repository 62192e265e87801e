"""All measurements on an accelerator in one run: the network, loss, post-processing and NMS.

First inference and training in bfloat16, compared with the faster mode of torchvision
(channels_last, bfloat16 autocast); then training with a large batch and rematerialization, ours
only; then single operations in float32. Beside the measurement of the network is the plan of the
compiler for this device. A contestant that fails or runs out of memory is named and left out, and
so is each part that would start after --minutes. Small cases also run on a CPU.
"""

import argparse
import os
import sys
import time

from benchmarks import loss, network, nms, postprocess
from benchmarks.contestants import MissingPeer
from benchmarks.rows import Row

CASES = "800x800x16,800x800x32,800x1344x16,800x1344x32"


def add_arguments(parser) -> None:
    cores = str(len(os.sched_getaffinity(0)))
    network.add_arguments(parser, CASES, cores, "bfloat16")
    parser.add_argument("--remat_cases", default="800x1344x128", help="with --remat, ours only")
    parser.add_argument("--shrink", type=int, default=1, help="as in postprocess")
    parser.add_argument("--minutes", type=float, default=9, help="no part starts later; default 9")
    parser.set_defaults(peers="eager,compile", steps=10, remat="backbone", platforms="")
    parser.set_defaults(anchors=200_000, classes=80, boxes="1000,5000", outputs=100)


def run(arguments) -> list[Row]:
    plain, large = (argparse.Namespace(**vars(arguments)) for _ in range(2))
    plain.remat = "none"
    large.cases, large.peers, large.xla_flags = arguments.remat_cases, "", ""
    parts = [(network.contest, mode, one) for one in _by_case(plain) for mode in ("infer", "train")]
    parts += [(network.contest, "train", one) for one in _by_case(large)]
    parts += [(operation.run, arguments) for operation in (loss, postprocess, nms)]
    rows, end = [], time.monotonic() + 60 * arguments.minutes
    for function, *what in parts:
        if time.monotonic() > end:
            name = " ".join([function.__module__, *map(str, what[:-1])])
            print(f"left out: {name}, after --minutes={arguments.minutes:g}", file=sys.stderr)
            continue
        try:
            rows += function(*what)
        except MissingPeer as error:
            print(f"left out: {error}", file=sys.stderr)
    return rows


def _by_case(arguments) -> list[argparse.Namespace]:
    """The same arguments with one case each, so that a failure affects one case only."""
    return [
        argparse.Namespace(**{**vars(arguments), "cases": case})
        for case in filter(None, arguments.cases.split(","))
    ]
