"""optimizer.learning_rate='auto': a range test before the first step, kept in the workdir."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax

from retinanet_jax.config.settings import Config, ConfigError
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.runtime.processes import from_first
from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.training.learning_rate_test import RangeTest, learning_rate_test
from retinanet_jax.training.setup import CompiledFunctions

FILE = "learning_rate.json"


def with_learning_rate(
    config: Config,
    dataset: Dataset | None,
    workdir: Path,
    log: Callable[[str], object],
    functions: CompiledFunctions | None = None,
) -> Config:
    """Returns `config` with a number instead of 'auto', from learning_rate.json or a range test.

    Args:
        config: configuration of the run; returned unchanged if it has a number.
        dataset: dataset to train on; None: the workdir must have a test already.
        workdir: folder of the run. A run that resumes finds the file there and uses the same rate.
        log: function that is called with each message.
        functions: compiled functions of the run, for the test; None: the test compiles its own.

    Raises:
        ConfigError: the loss did not fall during the test, or the workdir has no test.
    """
    if config.optimizer.learning_rate != "auto":
        return config
    path = workdir / FILE
    rate = from_first("learning rate", stored_learning_rate(workdir))
    if rate is None and dataset is None:
        raise ConfigError(
            f"config.optimizer.learning_rate: 'auto' needs {path}, which does not exist; write the "
            "learning rate of the run"
        )
    if rate is None:
        log("range test of the learning rate (config.optimizer.learning_rate=auto)")
        found = learning_rate_test(config, dataset=dataset, log=log, functions=functions)
        rate = _checked(found)
        if jax.process_index() == 0:
            content = {"learning_rate": rate, "rates": found.rates, "losses": found.losses}
            write_whole(path, json.dumps(content))
    log(f"learning rate {rate:g}, chosen by the range test in {path}")
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
    return dataclasses.replace(config, optimizer=optimizer)


def _checked(found: RangeTest) -> float:
    if found.suggestion is None:
        raise ConfigError(
            "config.optimizer.learning_rate: 'auto' found no rate at which the loss falls within "
            f"{len(found.rates)} steps; write a number, such as 0.01"
        )
    return found.suggestion


def stored_learning_rate(workdir: Path) -> float | None:
    """Returns the rate that the range test of a run found; None before the test.

    Raises:
        ConfigError: the file is damaged.
    """
    path = workdir / FILE
    if not path.exists():
        return None
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["learning_rate"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); delete it, or set a learning rate"
        ) from error
