"""The weights of a run of ours: config, categories and variables in its checkpoints."""

from pathlib import Path
from typing import Any

from retinanet_jax.config.settings import Config, from_json
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.checkpoints import Checkpoints


def describe(checkpoints: Checkpoints, step: int | None = None) -> tuple[Config, Categories]:
    """The configuration and the classes that a checkpoint was trained with."""
    metadata = checkpoints.read_metadata(step)
    categories = Categories(tuple(metadata["names"]), tuple(metadata["ids"]))
    return from_json(metadata["config"]), categories


def read_variables(checkpoints: Checkpoints, step: int | None = None) -> dict[str, Any]:
    """The variables to predict with: the moving average of the weights where one was kept."""
    state = checkpoints.read_part(("params", "batch_stats", "average"), step)
    return state["average"] or {"params": state["params"], "batch_stats": state["batch_stats"]}


def choose_checkpoint(
    workdir: Path, step: int | None = None
) -> tuple[Checkpoints, int | None, str]:
    """Where to read in a workdir, which step, and a word for it; None: there is no checkpoint."""
    best, every = Checkpoints(workdir / "best/checkpoints"), Checkpoints(workdir / "checkpoints")
    best_step = best.latest_step()
    if best_step is not None and step in (None, best_step):
        return best, best_step, "best"
    if step is not None:
        return every, step, "chosen"
    return every, every.latest_step(), "latest"
