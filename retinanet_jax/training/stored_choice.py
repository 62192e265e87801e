"""Reads what an earlier start of a run chose for a field that is 'auto'."""

from pathlib import Path
from typing import Any

from retinanet_jax.config.settings import read_config_file
from retinanet_jax.runtime.processes import from_first


def stored_choice(workdir: Path | None, section: str, field: str) -> Any:
    """Returns the value of a field in WORKDIR/config.json; None if it is missing or 'auto'.

    The first process reads it for all processes.
    """
    if workdir is None:
        return None
    path, stored = workdir / "config.json", None
    if path.exists():
        stored = getattr(getattr(read_config_file(path), section), field)
    return from_first(f"{section}.{field}", None if stored == "auto" else stored)
