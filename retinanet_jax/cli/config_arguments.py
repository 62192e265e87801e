"""The config that a command line names: --config=FILE and --config.SECTION.FIELD=VALUE."""

import argparse

from ml_collections import ConfigDict


def read_config(command: str, arguments: argparse.Namespace) -> ConfigDict:
    """The config as a tree.

    Args:
        command: name, for messages.
        arguments: `config`, and `passed_on` with what the command's parser did not know.

    Raises:
        ConfigError: no file is named, or an argument is none.
    """
    from retinanet_jax.config.settings import ConfigError
    from retinanet_jax.main import CONFIG, parse_flags

    if arguments.config is None:
        raise ConfigError("--config: name an experiment file, such as experiments/folder.py:small")
    words = [f"retinanet-jax {command}", f"--config={arguments.config}", *arguments.passed_on]
    if len(rest := parse_flags(words)) > 1:
        raise ConfigError(f"unknown arguments: {' '.join(rest[1:])}")
    return CONFIG.value
