"""Trains a detector on a folder of images in one call."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from retinanet_jax.config.experiment_files import load_config
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.config.short_settings import check_set_once, run_name, short_settings
from retinanet_jax.inference.detector import Detector
from retinanet_jax.runtime.compilation_cache import keep_compilations
from retinanet_jax.runtime.remote_folder import is_remote
from retinanet_jax.runtime.user_folders import expand_user
from retinanet_jax.training.run import train_and_evaluate


def train(
    data: str | Path,
    *,
    epochs: float | int | None = None,
    steps: int | None = None,
    batch_size: int | str | None = None,
    image_size: int | tuple[int, int] | str | None = None,
    weights: str | Path | None = None,
    lr: float | int | str | None = None,
    name: str | None = None,
    workdir: str | Path | None = None,
    config: str = "folder",
    loggers: Iterable[Any] = (),
    **fields: Any,
) -> Detector:
    """Trains a detector on a folder of images, and returns its best checkpoint.

    >>> detector = train("my_data/", epochs=20)                             # doctest: +SKIP
    >>> detector("photo.jpg").plot("drawn.png")                             # doctest: +SKIP

    This is the same run as `retinanet-jax train --data=my_data`, with experiments/folder.py: the
    layout of the folder is recognized, and network and image size fit the device. The same call
    resumes a stopped run; it does not train a finished run again.

    Args:
        data: folder of images and annotations, in any layout of docs/your_data.md.
        epochs, steps: length of the run; set one of them. The default depends on the number of
            images.
        batch_size: images per update; 'auto': as many as fit into memory.
        image_size: size in pixels: 640 resizes images to fit a square; (480, 640) sets the short
            and the long side of the images.
        weights: weights to start from: 'imagenet' (the default), 'none' for random weights, a name
            from `retinanet-jax weights`, a file, an address, or the workdir of a run.
        lr: config.optimizer.learning_rate; 'auto' finds one with a range test.
        name: the run is written to runs/NAME; by default, NAME is the name of the data's folder.
        workdir: folder of the run, or its address in object storage, instead of a name.
        config: experiment, by name or file, with a variant if it has any: 'folder:small'.
        loggers: additional loggers, such as a function of (step, scalars); see train_and_evaluate.
        fields: other fields of the config, as SECTION__FIELD: loss__gamma=1.5.

    Raises:
        ConfigError, DataError, WeightsError, CheckpointError, WorkdirError: raised before the first
            step.
        DivergenceError, Preempted: see train_and_evaluate.
    """
    if name is not None and workdir is not None:
        raise ConfigError(f"name={name!r} and workdir={str(workdir)!r}: set only one of them")
    given = {
        "data": data,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "image_size": image_size,
        "weights": weights,
        "lr": lr,
    }
    given = {
        setting: str(value) if isinstance(value, Path) else value
        for setting, value in given.items()
        if value is not None
    }
    check_set_once(given, {field.replace("__", ".") for field in fields})
    short = {field.replace(".", "__"): value for field, value in short_settings(given).items()}
    settings = load_config(config, **short, **fields)
    keep_compilations(settings.data.cache_dir)
    workdir = workdir or Path("runs") / (name or run_name(data))
    workdir = workdir if is_remote(workdir) else expand_user(workdir)
    train_and_evaluate(settings, workdir, loggers=loggers)
    return Detector.from_checkpoint(workdir)
