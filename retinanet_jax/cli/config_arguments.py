"""--config=EXPERIMENT and --config.SECTION.FIELD=VALUE of commands other than train."""

import argparse
from typing import Any

from ml_collections import ConfigDict


def read_config(command: str, arguments: argparse.Namespace) -> ConfigDict:
    """The config as a tree, read by the parser of `train`.

    Args:
        command: name, for messages.
        arguments: `config`, and `passed_on` with the arguments the command's parser does not know.

    Raises:
        UsageError: --config is missing, or there are unknown arguments.
        ConfigError: an experiment or a field does not exist.
    """
    from retinanet_jax.config.settings import UsageError
    from retinanet_jax.main import CONFIG

    if arguments.config is None and not any(w.startswith("--data") for w in arguments.passed_on):
        raise UsageError("--config: name an experiment, such as folder:small, or --data=FOLDER")
    _read(command, arguments, of_run=False)
    return CONFIG.value


def read_config_of_run(command: str, arguments: argparse.Namespace) -> Any:
    """The config as `evaluate_workdir` takes it: that of --config, or changes to that of a run.

    For the arguments and errors, see `read_config`.
    """
    from retinanet_jax.main import given_config

    _read(command, arguments, of_run=True)
    return given_config()


def _read(command: str, arguments: argparse.Namespace, *, of_run: bool) -> None:
    from retinanet_jax.config.command_line import explain_words
    from retinanet_jax.config.settings import UsageError
    from retinanet_jax.main import read_flags

    words = [f"retinanet-jax {command}", *arguments.passed_on]
    if arguments.config is not None:
        words.insert(1, f"--config={arguments.config}")
    if rest := read_flags(words, of_run=of_run)[1:]:
        raise UsageError(f"unknown arguments: {' '.join(rest)}{explain_words(rest)}")
