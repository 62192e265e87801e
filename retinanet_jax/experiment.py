"""Experiment files: found, run and explained to whoever names them on the command line."""

import importlib.util
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from retinanet_jax.config import ConfigError, default_config, suggest


def explain_unknown_field(path: str) -> str:
    """What is wrong with a field named on the command line, 'model.bakbone', and what is near."""
    known: Any = default_config().to_dict()
    done = "config"
    for name in path.split("."):
        if not isinstance(known, dict):
            return f"{done}: is a value and has no field {name}"
        if name not in known:
            return f"{done}.{name}: there is no such field; {suggest(name, known)}"
        known, done = known[name], f"{done}.{name}"
    return f"{done}: cannot be set as it was written"


def load_experiment(location: str) -> ConfigDict:
    """Runs `get_config` of an experiment file, 'experiments/coco.py' or 'experiments/coco.py:r101'.

    Raises:
        ConfigError: where there is no such file or variant.
    """
    path, _, variant = location.partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"--config: there is no file {path}")
    spec = importlib.util.spec_from_file_location("experiment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant) if variant else module.get_config()


def choose_variant(variants: dict[str, Any], name: str) -> Any:
    """The entry of an experiment's variants; an unknown name is a ConfigError that lists them."""
    if name not in variants:
        raise ConfigError(f"variant {name!r} is not one of {', '.join(map(repr, variants))}")
    return variants[name]
