"""Replaces 'auto' by numbers, for a run, its replay and the range test of its learning rate."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, check_batch_size
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.training.auto_batch_size import with_batch_size
from retinanet_jax.training.data_choices import with_data_choices
from retinanet_jax.training.run_length import with_run_length
from retinanet_jax.training.stored_choice import stored_choice


def print_first(message: str) -> None:
    """Prints a message on the first process only, before the log of the run is open."""
    if jax.process_index() == 0:
        print(message, flush=True)


def resolve_auto(
    config: Config,
    train_set: Dataset,
    mesh: Mesh,
    *,
    workdir: Path | None = None,
    log: Callable[[str], object] = print_first,
) -> tuple[Config, list[str]]:
    """Returns `config` with numbers instead of 'auto', and lines for the log, or ''.

    The learning rate of a new run does not change: auto_learning_rate.py chooses it with the
    resolved config.

    Args:
        config: configuration of the run.
        train_set: training set of the run.
        mesh: mesh of devices.
        workdir: a run that resumes, whose config.json has the numbers. None: compute them.
        log: function that is called with each message.

    Raises:
        ConfigError: no batch fits into memory, or a batch cannot be divided over the devices.
    """
    config, anchors = with_data_choices(config, train_set, workdir)
    config = with_batch_size(config, train_set, mesh, log, workdir)
    check_train_batch(config, mesh)
    config, length = with_run_length(config, train_set.epoch_size)
    return _with_stored_rate(config, workdir), [length, anchors]


def _with_stored_rate(config: Config, workdir: Path | None) -> Config:
    if config.optimizer.learning_rate != "auto":
        return config
    rate = stored_choice(workdir, "optimizer", "learning_rate") or "auto"
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
    return dataclasses.replace(config, optimizer=optimizer)


def check_train_batch(config: Config, mesh: Mesh) -> None:
    """Raises ConfigError if a batch, or a part of it, cannot be divided over the devices."""
    if config.train.batch_size != "auto":
        parts = config.optimizer.accumulate_steps
        check_batch_size(config.train.batch_size, mesh.size, "config.train.batch_size", parts)
