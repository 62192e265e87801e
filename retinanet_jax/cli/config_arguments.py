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

    if arguments.config is None:
        raise ConfigError("--config: name an experiment, such as folder:small")
    words = [f"retinanet-jax {command}", f"--config={arguments.config}", *arguments.passed_on]
    if len(rest := parse_flags(words)) > 1:
        raise ConfigError(f"unknown arguments: {' '.join(rest[1:])}")
    return CONFIG.value
