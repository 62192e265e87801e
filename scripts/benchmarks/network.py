"""Common parts of infer, train, gpu and tpu: ResNet-50 with 80 classes, compared with torchvision.

Each library runs on the device that it finds. On one CPU core the CPU time counts; on more cores
the wall time, because waiting threads also use CPU time. The share of the limit is the rate of the
convolutions' operations over the rate of a large matrix product of the same type on the same
device.
"""

import re
import sys
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.contestants import Contestant, take_turns
from benchmarks.rows import Row, compare, measure_and_unit, processor, versions

# Per image; a multiplication with its addition counts two. Stem and res2 are frozen.
OPERATIONS = {
    (640, 640): {"infer": 190.7e9, "train": 546e9},
    (800, 800): {"infer": 298e9, "train": 855e9},
    (800, 1344): {"infer": 501e9, "train": 1436e9},
}


class Case(NamedTuple):
    """Height and width in pixels, and images of a batch."""

    height: int
    width: int
    batch: int

    def operations(self, mode: str) -> float:
        """Operations of a batch; mode is infer or train. Other sizes scale by their area."""
        size = (self.height, self.width)
        scale = 1.0
        if size not in OPERATIONS:
            size, scale = (640, 640), self.height * self.width / 640**2
        return OPERATIONS[size][mode] * scale * self.batch


def parse_case(text: str) -> Case:
    """SIZExBATCH or HEIGHTxWIDTHxBATCH."""
    if not re.fullmatch(r"\d+x\d+(x\d+)?", text):
        raise SystemExit(f"--cases: {text!r} is neither SIZExBATCH nor HEIGHTxWIDTHxBATCH")
    sides = [int(number) for number in text.split("x")]
    return Case(*(sides if len(sides) == 3 else (sides[0], *sides)))


def add_arguments(parser, cases: str, cores: str = "1,2", dtype: str = "float32") -> None:
    parser.add_argument("--cores", default=cores, help="how many cores to use, one after the other")
    parser.add_argument("--cases", default=cases, help="SIZExBATCH or HxWxBATCH, comma-separated")
    parser.add_argument("--dtype", default=dtype, choices=("float32", "bfloat16"))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--remat", default="none", help="config.model.remat of ours")
    parser.add_argument(
        "--steps", type=int, default=1, help="steps that a round starts without waiting"
    )
    parser.add_argument(
        "--peers",
        default="eager,channels_last,compile",
        help="torchvision's modes; a row for each, the fastest first",
    )
    parser.add_argument("--peer_python", default=sys.executable, help="a Python with torchvision")
    parser.add_argument("--profile", default="", help="folder for traces of one step of ours")
    parser.add_argument(
        "--xla_flags",
        default="",
        help="sets of flags to compare ours with; semicolons between",
    )


def contest(mode: str, arguments) -> list[Row]:
    """Rows of all cases; mode is infer or train."""
    return [
        row
        for case in map(parse_case, arguments.cases.split(","))
        for cores in map(int, arguments.cores.split(","))
        for row in _rows(mode, case, cores, _measured(mode, case, cores, arguments), arguments)
    ]


def _measured(mode: str, case: Case, cores: int, arguments) -> dict[str, dict[str, list]]:
    common = (mode, *map(str, case), arguments.dtype, arguments.backbone, str(arguments.steps))
    start = partial(Contestant, cores=range(cores), platforms="")
    ours = partial(start, "network_ours", *common, arguments.remat)
    entrants = {"ours": partial(ours, arguments.profile)}
    for peer in filter(None, arguments.peers.split(",")):
        python = arguments.peer_python
        entrants[peer] = partial(start, "network_torchvision", *common, peer, python=python)
    for flags in filter(None, map(str.strip, arguments.xla_flags.split(";"))):
        entrants[flags] = partial(ours, "", xla_flags=flags)
    return take_turns(entrants, arguments.rounds)


def _rows(
    mode: str, case: Case, cores: int, found: dict[str, dict[str, list]], arguments
) -> Iterator[Row]:
    """For inference a row of the network alone, then a row for each peer, the fastest first."""
    ours = found.pop("ours")
    device = ours["device"][0]
    measure, unit = measure_and_unit(cores, device)
    label = f"{case.height}x{case.width}, batch {case.batch}, {arguments.dtype}"
    label += f", remat {arguments.remat}" * (arguments.remat != "none") + f": {unit}"
    peers = sorted(found.values(), key=lambda peer: np.median(peer[measure]))
    rate = float(np.median(ours["rate"]))
    about = {
        "device": f"{processor() if device == 'cpu' else device}; {rate / 1e12:.3g} TFLOP/s",
        "versions": versions("jaxlib", "flax", extra=", ".join(peer["name"][0] for peer in peers)),
    }

    def limit_share(time: float) -> dict[str, float]:
        known = arguments.backbone == "resnet50"
        return {"limit_share": case.operations(mode) / time / rate} if known else {}

    time = float(np.median(ours[measure]))
    memory = max(ours["memory_mb"])
    if mode == "infer":
        forward = float(np.median(ours[f"forward_{measure}"]))
        yield Row(f"forward, {label}", forward, **about, **limit_share(forward))
        on_top = np.divide(ours[measure], ours[f"forward_{measure}"]) - 1
        about["on_top"] = float(np.median(on_top))
    about |= {"memory_mb": memory, "memory_per_image_mb": memory / case.batch, **limit_share(time)}
    about |= {name: ours[name][0] for name in ("planned_ms", "planned_memory_mb") if name in ours}
    if not peers:
        yield Row(f"{mode}, {label}", time, **about)
    for peer in peers:
        memory = max(peer["memory_mb"])
        yield compare(
            f"{mode}, {label}",
            ours[measure],
            peer["name"][0],
            peer[measure],
            peer_memory_mb=memory,
            peer_memory_per_image_mb=memory / case.batch,
            **about,
        )
