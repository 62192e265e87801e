"""What the benchmarks of the whole network share: ResNet-50, 80 classes, ours beside torchvision's.

They run on the device that each library finds. On a CPU, one core gives CPU time, and more cores
wall time, since threads that wait for each other use CPU time as well. The share of the limit is
that of the operations of the convolutions in the time, over the rate of a large matrix product in
the same type on the same device.
"""

import sys
from functools import partial

import numpy as np

from benchmarks.contestants import Contestant, take_turns
from benchmarks.rows import Row, compare, processor, versions

# Two for a multiplication with its addition, a picture of 640 x 640; stem and res2 are frozen.
OPERATIONS = {"infer": 190.7e9, "train": 546e9}


def add_arguments(parser, cases: str) -> None:
    parser.add_argument("--cores", default="1,2", help="how many cores to use, one after the other")
    parser.add_argument("--cases", default=cases, help="SIZExBATCH, separated by commas")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--peer_python", default=sys.executable, help="a Python with torchvision")
    parser.add_argument("--profile", default="", help="folder for a trace of one round of ours")


def contest(mode: str, arguments) -> list[Row]:
    """Rows of all cases; mode is infer or train."""
    return [
        _row(mode, case, cores, _measured(mode, case, cores, arguments), arguments)
        for case in arguments.cases.split(",")
        for cores in map(int, arguments.cores.split(","))
    ]


def _measured(mode: str, case: str, cores: int, arguments) -> dict[str, dict[str, list]]:
    common = (mode, *case.split("x"), arguments.dtype, arguments.backbone)
    start = partial(Contestant, cores=range(cores), platforms="")
    entrants = {
        "ours": partial(start, "network_ours", *common, arguments.profile),
        "torchvision": partial(start, "network_torchvision", *common, python=arguments.peer_python),
    }
    return take_turns(entrants, arguments.rounds)


def _row(mode: str, case: str, cores: int, found: dict[str, dict[str, list]], arguments) -> Row:
    ours, peer = found["ours"], found.get("torchvision")
    size, batch = map(int, case.split("x"))
    by_cpu = cores == 1 and ours["device"][0] == "cpu"
    measure, unit = (
        ("cpu_s", "CPU, 1 core") if by_cpu else ("wall_s", f"time, {cores} core{'s' * (cores > 1)}")
    )
    label = f"{mode}, {size}x{size}, batch {batch}, {arguments.dtype}: {unit}"
    time, rate = (float(np.median(ours[key])) for key in (measure, "rate"))
    about = {
        "memory_mb": max(ours["memory_mb"]),
        "device": processor() if ours["device"][0] == "cpu" else ours["device"][0],
        "versions": versions("jaxlib", "flax", extra=peer["name"][0] if peer else ""),
    }
    if arguments.backbone == "resnet50":
        about["limit_share"] = OPERATIONS[mode] * batch * (size / 640) ** 2 / time / rate
    if not peer:
        return Row(label, time, **about)
    about["peer_memory_mb"] = max(peer["memory_mb"])
    return compare(label, ours[measure], peer["name"][0], peer[measure], **about)
