"""The record of what metrics were measured on, which is beside them in each file of results.

training/measured_on.py makes it: a dict with dataset, split, images, digest and metric.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinanet_jax.runtime.workdir import WorkdirError


def comparable(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> bool:
    """Returns whether two results are of the same images, objects and metric.

    Results of earlier versions have no record (None), and count as comparable.
    """
    if first is None or second is None:
        return True
    return all(first.get(name) == second.get(name) for name in ("digest", "metric"))


def describe_measurement(record: Mapping[str, Any]) -> str:
    """Returns 'coco on 12 images of d/cells val'."""
    return f"{record['metric']} on {record['images']} images of {record['dataset']}"


def check_measured_alike(first: Path, second: Path, names: tuple[Any, Any]) -> None:
    """Raises WorkdirError if two runs, or equal trials of two sweeps, have incomparable results.

    Args:
        first, second: folders.
        names: of both, for the message.
    """
    ours, theirs = _measurements(first), _measurements(second)
    for trial in sorted(ours.keys() & theirs.keys()):
        if not comparable(ours[trial], theirs[trial]):
            where = f"{trial} of " if trial != "." else ""
            raise WorkdirError(
                f"{where}{names[0]} has the results of {describe_measurement(ours[trial])}, and "
                f"{names[1]} of {describe_measurement(theirs[trial])}: not comparable; evaluate "
                "both on the same data: retinanet-jax evaluate --model=RUN --data=FOLDER"
            )


def _measurements(folder: Path) -> dict[str, Any]:
    """The records of a run under '.', or of the trials of a sweep by name."""
    own = folder / "results.json"
    found = {}
    for path in [own] if own.exists() else folder.glob("*/results.json"):
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            found[path.parent.relative_to(folder).as_posix()] = results.get("measured")
        except (OSError, ValueError, AttributeError):
            continue  # the comparison itself reports what it cannot read
    return found
