"""The plan of a run as plain text: a Markdown table, and whether the run fits."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from retinanet_jax.training.plan.chips import GIB, Chip
from retinanet_jax.training.plan.program_plan import ProgramPlan
from retinanet_jax.training.plan.run_plan import PlannedProgram, RunPlanner
from retinanet_jax.training.plan.run_programs import has_one_canvas

COLUMNS = (
    *("program", "canvas", "images a chip", "memory, GiB", "temporary, GiB", "collectives"),
    *(
        "kernels",
        "bound, ms",
        "cycles, M",
        "first bottleneck",
        "largest (by a line)",
        "compiled in, s",
    ),
)
NOT_IN_THE_PLAN = (
    "Not in the plan: time spent waiting for the host or for data, and the algorithms that "
    "libraries such as cuDNN choose at run time."
)

_GPU_COMPILERS = ("jax-cuda13-plugin", "jax-cuda12-plugin")


def heading(planner: RunPlanner) -> str:
    """Returns a line with the network, the chips and the versions."""
    model, chip = planner.config.model, planner.chip
    return (
        f"{model.backbone}, {model.dtype}, {planner.num_classes} classes; "
        f"{planner.mesh.size} x {chip.kinds[0]} ({chip.name}); {versions(chip)}"
    )


def versions(chip: Chip) -> str:
    """Returns the versions of JAX and of the package with the chip's compiler."""
    found = []
    for name in ("jax", "libtpu") if chip.platform == "tpu" else ("jax", *_GPU_COMPILERS):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join(found)


def records(rows: Sequence[PlannedProgram]) -> list[dict[str, Any]]:
    """Returns the rows as values for JSON; None if a value is not known."""
    return [
        {
            "program": row.mode,
            "canvas": _size(row.canvas),
            "images": row.images,
            "memory_gib": round(row.plan.memory / GIB, 3),
            "temporary_gib": round(row.plan.temporary / GIB, 3),
            "largest": row.largest,
            "collectives": _collectives(row.plan),
            "kernels": row.plan.kernels,
            "cycles": row.plan.cycles or None,
            "bound_ms": round(1e3 * row.plan.seconds, 2) or None,
            "bottleneck": _bottleneck(row.plan),
            "times_ms": {part: round(1e3 * time, 3) for part, time in row.plan.times.items()},
            "compile_s": round(row.plan.compile_seconds),
        }
        for row in rows
    ]


def table(rows: Sequence[PlannedProgram]) -> str:
    """Returns a Markdown table with a row for each program, without empty columns."""
    cells = [_cells(row) for row in rows]
    shown = [i for i in range(len(COLUMNS)) if any(line[i] for line in cells)]
    lines = [COLUMNS, *cells]
    width = {i: max(len(line[i]) for line in lines) for i in shown}
    written = ["| " + " | ".join(line[i].ljust(width[i]) for i in shown) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width[i] + 2) for i in shown) + "|"
    return "\n".join((written[0], rule, *written[1:]))


def canvas_note(rows: Sequence[PlannedProgram], planner: RunPlanner) -> str:
    """Of modes that have one canvas, and rows for all that it may be; '' without such a mode."""
    counts = Counter(row.mode for row in rows)
    fields = {"train": "train_canvas", "predict": "eval_canvas"}
    unknown = [
        f"config.pipeline.{fields[mode]}=one"
        for mode, count in counts.items()
        if count > 1 and has_one_canvas(planner.config, mode)
    ]
    if not unknown:
        return ""
    return (
        f"The run compiles one of these canvases ({', '.join(unknown)}): the smallest that holds "
        "all images, which were not read, as the number of classes was known; --canvas=HxW plans "
        "it alone.\n"
    )


def _cells(row: PlannedProgram) -> tuple[str, ...]:
    plan = row.plan
    start = row.mode, _size(row.canvas), str(row.images), f"{plan.memory / GIB:.2f}"
    end = _largest(row), f"{plan.compile_seconds:.0f}"
    if not plan.compiled:
        return *start, "", "", "", "", "", "does not compile: too large", *end
    return (
        *start,
        f"{plan.temporary / GIB:.2f}",
        _collectives(plan),
        f"{plan.kernels:,}",
        f"{1e3 * plan.seconds:.1f}" if plan.times else "",
        f"{plan.cycles / 1e6:.2f}" if plan.cycles else "",
        _bottleneck(plan),
        *end,
    )


def _size(canvas: tuple[int, int]) -> str:
    return f"{canvas[0]}x{canvas[1]}"


def _collectives(plan: ProgramPlan) -> str:
    counts = [f"{count} {kind}" for kind, count in sorted(plan.collectives.items())]
    loops = f" ({plan.in_loops} in loops)" if plan.in_loops else ""
    return (", ".join(counts) or "none") + loops


def _bottleneck(plan: ProgramPlan) -> str:
    found = plan.bottleneck()
    return f"{found[0]}: {1e3 * found[1]:.1f} ms" if found else ""


def _largest(row: PlannedProgram) -> str:
    if row.largest is None:
        return ""
    if row.check is None:
        return str(row.largest)
    return f"{row.largest} ({row.checked} compiled: {row.check.memory / GIB:.2f} GiB)"


def verdict(rows: Sequence[PlannedProgram], planner: RunPlanner) -> str:
    """Says whether all programs fit, and what to change if they do not."""
    worst = max(rows, key=lambda row: row.plan.memory)
    needs = (
        f"{worst.mode} at {_size(worst.canvas)} with {worst.images} images a chip needs "
        f"{worst.plan.memory / GIB:.2f} GiB of {planner.limit / GIB:.2f} (a run leaves 10% of the "
        f"{planner.chip.memory / GIB:.2f} GiB that programs may use)"
    )
    batches = [
        _batch_setting(mode, [row for row in rows if row.mode == mode], planner)
        for mode in dict.fromkeys(row.mode for row in rows)
    ]
    settings = [text for text in batches if text]
    if worst.plan.memory <= planner.limit and all(row.plan.compiled for row in rows):
        most = f" The largest batch: {', '.join(settings)}." if settings else ""
        return f"Fits: {needs}.{most}"
    fixes = [*settings, "--config.model.remat=all"]
    if planner.config.model.dtype != "bfloat16":
        fixes.append("--config.model.dtype=bfloat16")
    fixes.append("smaller images (--config.pipeline.min_side and max_side)")
    return f"Does not fit: {needs}. Set {', or '.join(fixes)}."


def _batch_setting(mode: str, rows: Sequence[PlannedProgram], planner: RunPlanner) -> str:
    """The setting of the largest batch that fits with every canvas; '' where it is not known."""
    largest = [row.largest for row in rows]
    if None in largest or not min(largest):
        return ""
    section = "train" if mode == "train" else "evaluation"
    return f"--config.{section}.batch_size={min(largest) * planner.mesh.size}"
