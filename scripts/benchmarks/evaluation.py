"""COCO's twelve numbers by `coco_average_precision`: hotcoco compared with pycocotools.

1,000 images with on average 7 objects of 80 classes and 100 detections each. The numbers must agree
to 1e-12.
"""

from functools import partial

import numpy as np

from benchmarks.contestants import Contestant, take_turns
from benchmarks.rows import Row, compare, processor, versions

BACKENDS = {"ours": "hotcoco", "pycocotools": "pycocotools"}


def add_arguments(parser) -> None:
    parser.add_argument("--cores", default="1,2", help="how many cores to use, one after the other")
    parser.add_argument("--images", type=int, default=1000)


def run(arguments) -> list[Row]:
    return [
        row
        for cores in map(int, arguments.cores.split(","))
        for row in _contest(cores, arguments.images, arguments.rounds)
    ]


def _contest(cores: int, images: int, rounds: int) -> list[Row]:
    entrants = {
        name: partial(Contestant, "evaluation_backend", backend, str(images), cores=range(cores))
        for name, backend in BACKENDS.items()
    }
    found = take_turns(entrants, rounds)
    ours, peer = found["ours"], found["pycocotools"]
    np.testing.assert_allclose(ours["result"], peer["result"], rtol=0, atol=1e-12)
    measure, unit = ("cpu_s", "CPU, 1 core") if cores == 1 else ("wall_s", f"time, {cores} cores")
    return [
        compare(
            f"AP of {images:,} x 100 detections: {unit}",
            ours[measure],
            "pycocotools",
            peer[measure],
            memory_mb=max(ours["memory_mb"]),
            peer_memory_mb=max(peer["memory_mb"]),
            device=processor(),
            versions=versions("hotcoco", "pycocotools"),
        )
    ]
