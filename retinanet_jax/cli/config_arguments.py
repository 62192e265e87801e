"""--config=EXPERIMENT and --config.SECTION.FIELD=VALUE of commands other than train."""

import argparse

from ml_collections import ConfigDict


def read_config(command: str, arguments: argparse.Namespace) -> ConfigDict:
    """The config as a tree, read by the parser of `train`.

    Args:
        command: name, for messages.
        arguments: `config`, and `passed_on` with the arguments the command's parser does not know.

    Raises:
        ConfigError: --config is missing, or there are unknown arguments.
    """
    from retinanet_jax.config.settings import ConfigError
    from retinanet_jax.main import CONFIG, parse_flags

    words = [f"retinanet-jax {command}", *arguments.passed_on]
    if arguments.config is not None:
        words.insert(1, f"--config={arguments.config}")
    elif not any(word.startswith("--data") for word in words):
        raise ConfigError("--config: name an experiment, such as folder:small, or --data=FOLDER")
    if len(rest := parse_flags(words)) > 1:
        raise ConfigError(f"unknown arguments: {' '.join(rest[1:])}")
    return CONFIG.value
