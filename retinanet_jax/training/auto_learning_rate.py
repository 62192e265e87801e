"""optimizer.learning_rate='auto': a range test before the first step of a run."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax

from retinanet_jax.config.settings import Config, ConfigError
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.training.learning_rate_test import RangeTest, learning_rate_test
from retinanet_jax.training.setup import CompiledFunctions

FILE = "learning_rate.json"


def with_learning_rate(
    config: Config,
    dataset: Dataset,
    workdir: Path,
    log: Callable[[str], object],
    functions: CompiledFunctions | None = None,
) -> Config:
    """Returns `config` with the rate of a range test instead of 'auto'.

    Args:
        config: configuration of the run; returned unchanged if it has a number.
        dataset: dataset to train on.
        workdir: folder of the run. The losses of the test are written to its learning_rate.json.
        log: function that is called with each message.
        functions: compiled functions of the run, for the test; None: the test compiles its own.

    Raises:
        ConfigError: the loss did not fall during the test.
    """
    if config.optimizer.learning_rate != "auto":
        return config
    log("range test of the learning rate (config.optimizer.learning_rate=auto)")
    found = learning_rate_test(config, dataset=dataset, log=log, functions=functions)
    rate, path = _checked(found), workdir / FILE
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
