"""WORKDIR/best/: the checkpoint with the best evaluation of a run."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from retinanet_jax.runtime.workdir import write_whole


def keep_best(workdir: Path, step: int, summary: Mapping[str, float | None]) -> bool:
    """Copies the checkpoint of `step` to WORKDIR/best/ if its evaluation is the best so far.

    WORKDIR/best/ is itself a workdir, for the Detector and for `--mode=evaluate`. Its results.json
    holds the best metrics so far, also for the next start. Files are hard links if the file system
    has them, so that they use extra space only once the run deletes its own checkpoint.

    Args:
        workdir: folder of the run; the checkpoint of `step` must be complete.
        step: that was evaluated.
        summary: metrics by name. The first one decides, higher is better; None (undefined) is never
            the best.

    Returns:
        Whether it is the best so far.
    """
    results, (metric, value) = workdir / "best" / "results.json", next(iter(summary.items()))
    if value is None or math.isnan(value) or value <= _best_so_far(results, metric):
        return False
    folder = results.parent / "checkpoints"
    target, temporary = folder / str(step), folder / f".{step}"
    # Renamed when complete; what a killed run left is copied again.
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(workdir / "checkpoints" / str(step), temporary, copy_function=_link)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    write_whole(results, json.dumps({"step": step, "summary": dict(summary)}, indent=2))
    for other in folder.iterdir():
        if other != target:
            shutil.rmtree(other)
    return True


def best_step(workdir: Path) -> int | None:
    """The step of the best evaluation of a run; None if there is none."""
    try:
        return json.loads((workdir / "best/results.json").read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError):
        return None


def _best_so_far(results: Path, metric: str) -> float:
    """The value in results.json; -inf if there is none or it is undefined."""
    try:
        value = json.loads(results.read_text(encoding="utf-8"))["summary"][metric]
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf
    return -math.inf if value is None else value


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
