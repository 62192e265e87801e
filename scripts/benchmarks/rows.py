"""Results of a benchmark: rows, printed as a Markdown table or written as JSON."""

import dataclasses
import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

VERSIONS_OF = ("jax", "numpy")
COLUMNS = (
    *("case", "ours, ms", "peer", "peer, ms"),
    *("ours / peer (min - median - max)", "memory, MB"),
)
OPTIONAL = {  # where known
    "memory_per_image_mb": "memory per image, MB",
    "temporary": "temporary / input",
    "limit_share": "share of limit",
    "on_top": "decode and NMS / forward",
    "planned_ms": "plan of the compiler, ms",
    "planned_memory_mb": "plan of the compiler, MB",
}
FORMS = {
    "memory_per_image_mb": "{:.0f}",
    "temporary": "{:.1f}",
    "limit_share": "{:.0%}",
    "on_top": "{:.1%}",
    "planned_ms": "{:.2f}",
    "planned_memory_mb": "{:.0f}",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison; times in seconds, medians over the rounds.

    Attributes:
        case: the work that was measured.
        ours_s: time of ours.
        peer: the program compared with; '' for none.
        peer_s: time of the peer.
        ratio: ours_s / peer_s of the same round: smallest, median, largest.
        memory_mb: peak memory of our process, or on a GPU of the device; peer_memory_mb the peer's.
        memory_per_image_mb: the same by the images of a batch, peer_memory_per_image_mb the peer's.
        temporary: memory of the work without its inputs and results, as a multiple of the inputs;
            peer_temporary that of the peer.
        limit_share: share of the limit of the hardware, if one is defined.
        on_top: for detection, the time after the network over the time of the network.
        planned_ms: the time that the compiler's plan gives for ours: see training/plan.
        planned_memory_mb: the memory in that plan.
        device: name of the device.
        versions: of the packages that matter.
    """

    case: str
    ours_s: float
    peer: str = ""
    peer_s: float | None = None
    ratio: tuple[float, float, float] | None = None
    memory_mb: float | None = None
    peer_memory_mb: float | None = None
    memory_per_image_mb: float | None = None
    peer_memory_per_image_mb: float | None = None
    temporary: float | None = None
    peer_temporary: float | None = None
    limit_share: float | None = None
    on_top: float | None = None
    planned_ms: float | None = None
    planned_memory_mb: float | None = None
    device: str = ""
    versions: str = ""


def compare(case: str, ours: Sequence[float], peer: str, theirs: Sequence[float], **more) -> Row:
    """The row of times measured in turns: ratios are taken within a round."""
    ratios = np.divide(ours, theirs)
    low, middle, high = (float(f(ratios)) for f in (np.min, np.median, np.max))
    return Row(
        case, float(np.median(ours)), peer, float(np.median(theirs)), (low, middle, high), **more
    )


def compare_starts(
    case: str, rounds: Sequence[tuple[dict[str, float], dict[str, float]]], *packages: str
) -> list[Row]:
    """CPU and wall time of second starts beside first ones.

    Args:
        case: what starts.
        rounds: of each, 'cpu_s', 'wall_s' and 'memory_mb' of a first and of a second start.
        packages: whose versions are given.
    """
    first, second = (
        {measure: [one[measure] for one in starts] for measure in starts[0]}
        for starts in zip(*rounds, strict=True)
    )
    return [
        compare(
            f"{case}, second start: {label}",
            second[measure],
            "first start",
            first[measure],
            memory_mb=max(second["memory_mb"]),
            peer_memory_mb=max(first["memory_mb"]),
            device=processor(),
            versions=versions(*packages),
        )
        for measure, label in (("cpu_s", "CPU"), ("wall_s", "time"))
    ]


def measure_and_unit(cores: int, device: str) -> tuple[str, str]:
    """The time that counts and its label: cpu_s on one CPU core, else wall_s."""
    if device != "cpu":
        return "wall_s", "time"
    return ("cpu_s", "CPU, 1 core") if cores == 1 else ("wall_s", f"time, {cores} cores")


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions(*packages: str, extra: str = "") -> str:
    """Versions of Python, jax, numpy and the given packages; `extra` is appended."""
    found = [f"Python {platform.python_version()}"]
    for name in (*VERSIONS_OF, *packages):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join([*found, *([extra] if extra else [])])


def print_table(rows: Sequence[Row]) -> None:
    """Prints the rows as a Markdown table, then devices and versions."""
    more = [field for field in OPTIONAL if any(getattr(row, field) is not None for row in rows)]
    columns = [*COLUMNS, *(OPTIONAL[field] for field in more)]
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in rows:
        ratio = " - ".join(f"{x:.2f}" for x in row.ratio) if row.ratio else ""
        cells = [
            row.case,
            f"{row.ours_s * 1e3:.2f}",
            row.peer,
            "" if row.peer_s is None else f"{row.peer_s * 1e3:.2f}",
            ratio,
            _pair(row.memory_mb, row.peer_memory_mb, "{:.0f}"),
        ]
        for field in more:
            peer = getattr(row, f"peer_{field}", None)
            cells.append(_pair(getattr(row, field), peer, FORMS[field]))
        print(f"| {' | '.join(cells)} |")
    for line in dict.fromkeys(f"{row.device}; {row.versions}" for row in rows):
        print(f"\n{line}")


def _pair(ours: float | None, peer: float | None, form: str) -> str:
    return " : ".join(form.format(value) for value in (ours, peer) if value is not None)


def write_json(rows: Sequence[Row], path: Path) -> None:
    """Writes a JSON list of objects with the fields of Row."""
    path.write_text(
        json.dumps([dataclasses.asdict(row) for row in rows], indent=2), encoding="utf-8"
    )
