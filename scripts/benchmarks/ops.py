"""Common parts of the benchmarks of single operations: CPU time on one core, wall time on more.

They run on the CPU, or on the platform that the arguments name (`platforms`).
"""

import sys
from functools import partial

import numpy as np

from benchmarks.contestants import Contestant, take_turns
from benchmarks.rows import Row, compare, measure_and_unit, processor, versions


def add_arguments(parser) -> None:
    parser.add_argument("--cores", default="1,2", help="how many cores to use, one after the other")
    parser.add_argument("--peer_python", default=sys.executable, help="a Python with torchvision")


def contest(
    case: str, sizes: tuple[int, ...], label: str, peers: tuple[str, ...], arguments
) -> list[Row]:
    """Rows of one operation: module ops_ours compared with ops_PEER of each available peer.

    Raises:
        AssertionError: a peer has another result.
    """
    return [
        row
        for cores in map(int, arguments.cores.split(","))
        for row in _rows(label, cores, _measured(cores, case, sizes, peers, arguments))
    ]


def _measured(cores: int, case: str, sizes: tuple[int, ...], peers, arguments) -> dict:
    entrants = {
        name: partial(
            Contestant,
            f"ops_{name}",
            case,
            *map(str, sizes),
            cores=range(cores),
            python=arguments.peer_python if name == "torchvision" else sys.executable,
            platforms=getattr(arguments, "platforms", "cpu"),
        )
        for name in ("ours", *(() if getattr(arguments, "only_ours", False) else peers))
    }
    return take_turns(entrants, arguments.rounds)


def _rows(label: str, cores: int, found: dict[str, dict[str, list]]) -> list[Row]:
    ours = found.pop("ours")
    for peer in found.values():
        np.testing.assert_allclose(ours["result"], peer["result"], rtol=1e-4)
    device = ours["device"][0]
    measure, unit = measure_and_unit(cores, device)
    case = f"{label}: {unit}"
    about = {
        "memory_mb": max(ours["memory_mb"]),
        "temporary": ours["temporary"][0],
        "device": processor() if device == "cpu" else device,
        "versions": versions(extra=", ".join(peer["name"][0] for peer in found.values())),
    }
    if not found:
        return [Row(case, float(np.median(ours[measure])), **about)]
    return [
        compare(
            case,
            ours[measure],
            peer["name"][0],
            peer[measure],
            peer_memory_mb=max(peer["memory_mb"]),
            peer_temporary=peer.get("temporary", [None])[0],
            **about,
        )
        for peer in found.values()
    ]
