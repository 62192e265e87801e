"""The checkpoint with the best evaluation of a run, kept beside the last ones."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from retinanet_jax.runtime.workdir import write_whole


def keep_best(workdir: Path, step: int, summary: Mapping[str, float]) -> bool:
    """Keeps the checkpoint of `step` in WORKDIR/best/ if no evaluation before was as good.

    WORKDIR/best/ is a workdir itself: the Detector and `--mode=evaluate` take it. Its results.json
    says what is best so far, after a restart too. The files are linked where the disk can do that,
    so that they take room of their own only once the run has deleted its checkpoint.

    Args:
        workdir: of the run; the checkpoint is written whole.
        step: of the checkpoint that was evaluated.
        summary: what was found; its first number counts, the higher the better.

    Returns:
        Whether it is the best.
    """
    results, (metric, value) = workdir / "best" / "results.json", next(iter(summary.items()))
    before = json.loads(results.read_text())["summary"][metric] if results.exists() else -math.inf
    if not value > before:  # as NaN is not
        return False
    folder = results.parent / "checkpoints"
    place, beside = folder / str(step), folder / f".{step}"
    # Whole under its name or not at all; what a kill has left is begun anew.
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(workdir / "checkpoints" / str(step), beside, copy_function=_link)
    shutil.rmtree(place, ignore_errors=True)
    beside.rename(place)
    write_whole(results, json.dumps({"step": step, "summary": dict(summary)}, indent=2))
    for other in folder.iterdir():
        if other != place:
            shutil.rmtree(other)
    return True


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
