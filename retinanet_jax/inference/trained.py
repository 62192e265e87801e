"""A trained network, and where it is read: the workdir of a run, or public weights."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from retinanet_jax.config.settings import Config
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.remote_folder import is_remote
from retinanet_jax.runtime.workdir_download import checkpoint_of, local_workdir
from retinanet_jax.weights import WeightsError, load_detector
from retinanet_jax.weights.locations import is_location
from retinanet_jax.weights.run_weights import choose_checkpoint, describe, read_variables


class Trained(NamedTuple):
    """A trained network, with the conventions and the classes of its weights."""

    variables: Any
    config: Config
    categories: Categories


def read_trained(
    location: str | Path, step: int | None = None, log: Callable[[str], object] = logging.info
) -> Trained:
    """Reads the network of a run, or a public network with the conventions of its project.

    Args:
        location: workdir of a run, also in object storage; or a RetinaNet of torchvision,
            detectron2 or MMDetection by name, path, https URL or hf://owner/name/file (see
            weights.load_checkpoint).
        step: step of the workdir's checkpoint. None: the best checkpoint, which is in WORKDIR/best,
            or the latest if the run has not been evaluated.
        log: function that is called with a line about the checkpoint that is used.

    Raises:
        CheckpointError: the workdir has no checkpoint, or none of this step.
        WeightsError: the file or workdir does not exist, or the file is not such a RetinaNet.
    """
    if not isinstance(location, str | os.PathLike) or not str(location):
        fix = "pass a workdir, a file, an https:// URL or hf://owner/name/file"
        raise WeightsError(f"{location!r} is not the location of a network; {fix}")
    if is_remote(location):
        with local_workdir(location, checkpoint_of(step)) as folder:
            return read_trained(
                folder, step, lambda line: log(line.replace(str(folder), str(location)))
            )
    path = Path(location).expanduser()
    if path.is_dir():
        checkpoints, step, kind = choose_checkpoint(path, step)
        trained = Trained(read_variables(checkpoints, step), *describe(checkpoints, step))
        log(f"{location}: {kind} checkpoint, step {step}")
        return trained
    if not is_location(location):
        raise WeightsError(
            f"{location}: no such workdir or file in {Path.cwd()}; use the --workdir of a run, or "
            "a RetinaNet: a name from `retinanet-jax weights`, a file, an https URL or hf://..."
        )
    return Trained(*load_detector(location)[:3])
