"""WORKDIR/best/: the checkpoint with the best evaluation of a run."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinanet_jax.runtime.measurement import comparable, describe_measurement
from retinanet_jax.runtime.workdir import write_whole

RESULTS = "best/results.json"


def keep_best(
    workdir: Path,
    step: int,
    summary: Mapping[str, float | None],
    measured: Mapping[str, Any] | None = None,
) -> bool:
    """Copies the checkpoint of `step` to WORKDIR/best/ if its evaluation is the best so far.

    WORKDIR/best/ is itself a workdir, for the Detector and for `--mode=evaluate`. Its results.json
    holds the best metrics so far, also for the next start. Files are hard links if the file system
    has them, so that they use extra space only once the run deletes its own checkpoint.

    Args:
        workdir: folder of the run; the checkpoint of `step` must be complete.
        step: that was evaluated.
        summary: metrics by name. The first one decides, higher is better; None (undefined) is never
            the best.
        measured: what they were measured on (measurement.py). A best checkpoint of other data or of
            another metric is replaced.

    Returns:
        Whether it is the best so far.
    """
    metric, value = next(iter(summary.items()))
    if value is None or math.isnan(value):
        return False
    before = _stored(workdir)
    if comparable(before.get("measured"), measured) and value <= _best_so_far(before, metric):
        return False
    folder = workdir / "best" / "checkpoints"
    target, temporary = folder / str(step), folder / f".{step}"
    # Renamed when complete; what a killed run left is copied again.
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(workdir / "checkpoints" / str(step), temporary, copy_function=_link)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    results = {"step": step, "summary": dict(summary)}
    if measured is not None:
        results["measured"] = dict(measured)
    write_whole(workdir / RESULTS, json.dumps(results, indent=2))
    for other in folder.iterdir():
        if other != target:
            shutil.rmtree(other)
    return True


def best_step(workdir: Path) -> int | None:
    """The step of the best evaluation of a run; None if there is none."""
    return _stored(workdir).get("step")


def measured_otherwise(workdir: Path, measured: Mapping[str, Any] | None) -> str:
    """What the best checkpoint was measured on, if other than `measured`; else ''."""
    before = _stored(workdir).get("measured")
    return "" if comparable(before, measured) else describe_measurement(before)


def _stored(workdir: Path) -> dict[str, Any]:
    """WORKDIR/best/results.json; empty if it is missing or damaged."""
    try:
        results = json.loads((workdir / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return results if isinstance(results, dict) else {}


def _best_so_far(results: Mapping[str, Any], metric: str) -> float:
    """The value in the results of the best; -inf if there is none or it is undefined."""
    summary = results.get("summary")
    value = summary.get(metric) if isinstance(summary, dict) else None
    return -math.inf if value is None else value


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
