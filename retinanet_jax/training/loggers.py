"""Loggers for the numbers and images of a run, beside metrics.jsonl: TensorBoard, W&B, MLflow.

A logger is any object with the three methods of `Logger`. `config.train.loggers` names the loggers
below; `train(..., loggers=[...])` also takes your own objects, or functions of (step, scalars). A
logger that raises an error is switched off, and the run continues (see RunLog). Only StopRun ends
the run.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from retinanet_jax.config import sections
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.workdir import write_whole

PROJECT = "retinanet_jax"  # of W&B, and the experiment of MLflow


class StopRun(Exception):
    """Raised by a logger to end the run at once, for example in a search that prunes trials.

    `train_and_evaluate` passes it on to its caller. Only supported for runs of one process.
    """


@runtime_checkable
class Logger(Protocol):
    """Receives the numbers, images and settings of a run."""

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Receives numbers by names such as 'train/loss' after `step` updates; may have NaN."""

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Receives RGB images [h w 3], uint8, by name."""

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Receives all fields of the config as nested dicts, once, before the first step."""


class TensorBoardLogger:
    """Writes event files for TensorBoard to WORKDIR/tensorboard.

    Args:
        workdir: folder of the run.
        start_step: step at which the run resumes; later points are hidden. None hides none.
    """

    def __init__(self, workdir: Path, start_step: int | None):
        from tensorboardX import SummaryWriter

        purge_step = None if start_step is None else start_step + 1
        folder = str(workdir / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=purge_step, flush_secs=10)

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._check()
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        self._check()
        for name, image in images.items():
            # SummaryWriter.add_image takes a second to encode a page of detections as PNG.
            jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
            size = dict(zip(("height", "width", "colorspace"), image.shape, strict=True))
            value = Summary.Value(tag=name, image=Summary.Image(encoded_image_string=jpeg, **size))
            self._writer.file_writer.add_summary(Summary(value=[value]), step)

    def log_config(self, config: Mapping[str, Any]) -> None:
        self._check()
        self._writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", 0)

    def close(self) -> None:
        self._check()
        self._writer.close()

    def _check(self) -> None:
        # A failed write ends tensorboardX's thread; later writes would then block forever.
        if not self._writer.file_writer.event_writer._worker.is_alive():
            raise OSError("its file cannot be written")


class WandbLogger:
    """Logs to Weights & Biases; WANDB_MODE, WANDB_PROJECT and its other variables apply.

    A run that resumes continues the same W&B run.
    """

    def __init__(self, workdir: Path):
        import wandb

        self._images = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=_remembered(workdir / "wandb_run.txt", lambda: secrets.token_hex(4)),
            name=workdir.name,
            dir=str(workdir),
            resume="allow",
            reinit="create_new",
        )
        # W&B counts its own steps, which cannot go back; ours is the axis of all plots.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({**scalars, "step": step})

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        drawn = {name: self._images(image) for name, image in images.items()}
        self._run.log({**drawn, "step": step})

    def log_config(self, config: Mapping[str, Any]) -> None:
        self._run.config.update(config, allow_val_change=True)

    def close(self) -> None:
        self._run.finish()


class MlflowLogger:
    """Logs to MLflow, on the server or store of MLFLOW_TRACKING_URI, or MLflow's default.

    A run that resumes continues the same MLflow run.
    """

    def __init__(self, workdir: Path):
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._run_id = _remembered(workdir / "mlflow_run.txt", lambda: self._new_run(workdir.name))

    def _new_run(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        return self._client.create_run(number, run_name=name).info.run_id

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            # 'train/gradient_norm' cannot be a file and a folder of its file store.
            kind, _, name = name.partition("/")
            name = f"{kind}/{name.replace('/', '_')}"
            self._client.log_metric(self._run_id, name, float(value), step=step)

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, image in images.items():
            self._client.log_image(self._run_id, image, artifact_file=f"{name}_{step:06d}.png")

    def log_config(self, config: Mapping[str, Any]) -> None:
        self._client.log_dict(self._run_id, dict(config), "config.json")

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


class CallbackLogger:
    """Calls a function of (step, scalars)."""

    def __init__(self, function: Callable[[int, dict[str, float]], object]):
        self._function = function

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._function(step, dict(scalars))

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        pass

    def log_config(self, config: Mapping[str, Any]) -> None:
        pass


OpenLogger = Callable[[Path, int | None], Logger]
OPENERS: dict[str, OpenLogger] = {
    "tensorboard": lambda workdir, start_step: TensorBoardLogger(workdir, start_step),
    "wandb": lambda workdir, start_step: WandbLogger(workdir),
    "mlflow": lambda workdir, start_step: MlflowLogger(workdir),
}


def add_logger(name: str, open_logger: OpenLogger) -> None:
    """Registers a value of `train.loggers`.

    Args:
        name: name of the logger.
        open_logger: function of (workdir, step from which the run resumes or None) that returns a
            Logger.
    """
    if name not in sections.LOGGERS:
        sections.LOGGERS.append(name)
    OPENERS[name] = open_logger


# The extra that has the packages of a logger.
EXTRAS = {"wandb": "wandb", "mlflow": "mlflow"}


def open_loggers(
    names: Iterable[str], workdir: Path, start_step: int | None, own: Iterable[Any] = ()
) -> list[Logger]:
    """Returns the loggers of config.train.loggers and those of the caller.

    Raises:
        ConfigError: a package is missing, a logger cannot be started, or an object is no logger.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    found: list[Logger] = []
    for name in names:
        try:
            found.append(OPENERS[name](workdir, start_step))
        except ImportError as error:
            fix = f"pip install 'retinanet_jax[{EXTRAS[name]}]'" if name in EXTRAS else str(error)
            raise ConfigError(f"config.train.loggers: {name!r} is not installed; {fix}") from error
        except Exception as error:  # no account, no connection, no such server
            raise ConfigError(
                f"config.train.loggers: {name!r} could not be started ({type(error).__name__}: "
                f"{error}); remove it, or correct its settings"
            ) from error
    for logger in own:
        if not isinstance(logger, Logger):
            if not callable(logger):
                raise ConfigError(
                    f"loggers: {logger!r} is not a logger; give a function of (step, scalars), or "
                    "an object with log_scalars, log_images and log_config"
                )
            logger = CallbackLogger(logger)
        found.append(logger)
    return found


def _remembered(path: Path, make: Callable[[], str]) -> str:
    """The text of a file, written at the first call."""
    if not path.is_file():
        write_whole(path, make())
    return path.read_text(encoding="utf-8").strip()
