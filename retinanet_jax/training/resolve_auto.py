"""Numbers in place of 'auto', for a run, its replay and the range test of its learning rate."""

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
    """Prints a message, before the log of the run is open, on the first process alone."""
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
    """`config` with numbers in place of 'auto', and lines for the log, '' where nothing changed.

    A new run's learning rate stays: auto_learning_rate.py chooses it, by steps of the config found
    here.

    Args:
        config: of the run.
        train_set: of the run.
        mesh: of devices.
        workdir: of a run that resumes: its config.json has the numbers. None: computed.
        log: called with messages.

    Raises:
        ConfigError: no batch fits into the memory, or a batch does not divide over the devices.
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
    """Raises ConfigError where a batch, or a part of it, does not divide over the devices."""
    if config.train.batch_size != "auto":
        parts = config.optimizer.accumulate_steps
        check_batch_size(config.train.batch_size, mesh.size, "config.train.batch_size", parts)
