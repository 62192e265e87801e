"""Experiment files: found, run and explained to whoever names them on the command line."""

import difflib
import importlib.util
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from retinanet_jax.config.settings import (
    Config,
    ConfigError,
    default_config,
    from_config_dict,
    suggest,
)


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


def explain_flag(name: str, flags: Iterable[str]) -> str:
    """What a person may have meant by a flag that is none of `flags`, or a field without config."""
    if name.startswith("config."):
        return "; fields follow the experiment file: --config=FILE.py"
    meanings = [(flag, flag) for flag in flags]
    for section, values in default_config().to_dict().items():
        for field in values if isinstance(values, dict) else ():
            whole = f"config.{section}.{field}"
            meanings += [(field, whole), (f"{section}.{field}", whole)]
    close = difflib.get_close_matches(name, [written for written, _ in meanings], n=1)
    meant = [f"--{meaning}" for written, meaning in meanings if written in close]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def load_experiment(location: str) -> ConfigDict:
    """Runs `get_config` of an experiment file, 'experiments/coco.py' or 'experiments/coco.py:r101'.

    Raises:
        ConfigError: where there is no such file or variant, or the file is no experiment.
    """
    path, _, variant = location.partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"--config: there is no file {path}{_near(Path(path))}")
    spec = importlib.util.spec_from_file_location("experiment", path)
    if spec is None:
        raise ConfigError(f"--config: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        where = traceback.format_exc(limit=-1).rstrip()
        raise ConfigError(f"--config: {path} cannot be run:\n{where}") from error
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config: {path} has no function get_config() that returns a config")
    return module.get_config(variant) if variant else module.get_config()


def _near(path: Path) -> str:
    """Where a file was looked for that is not there, and what is there by a similar name."""
    there = [file.name for file in path.parent.glob("*.py")]
    if close := difflib.get_close_matches(f"{path.stem}.py", there, n=1):
        return f"; did you mean {path.with_name(close[0])}?"
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def choose_variant(variants: dict[str, Any], name: str) -> Any:
    """The entry of an experiment's variants; an unknown name is a ConfigError that lists them."""
    if name not in variants:
        raise ConfigError(f"variant {name!r} is not one of {', '.join(map(repr, variants))}")
    return variants[name]


def load_config(location: str, **fields: Any) -> Config:
    """The configuration of an experiment file, with some fields changed.

    >>> load_config("experiments/shapes.py", train__steps=100)             # doctest: +SKIP

    Args:
        location: of the file, with a variant where it has any: 'experiments/folder.py:small'.
        fields: values by SECTION__FIELD, as --config.SECTION.FIELD=VALUE on the command line.

    Raises:
        ConfigError: no such file, variant or field, or an invalid value.
    """
    tree = load_experiment(location)
    for name, value in fields.items():
        section, _, field = name.rpartition("__")
        try:
            target = tree[section] if section else tree
            target[field] = value
        except (AttributeError, KeyError, TypeError) as error:
            problem = explain_unknown_field(name.replace("__", "."))
            raise ConfigError(f"{problem} ({error})") from error
    return from_config_dict(tree)
