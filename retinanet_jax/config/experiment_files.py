"""Finds experiment files by path or name, loads them, and explains errors in their fields."""

import difflib
import functools
import importlib.util
import operator
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from retinanet_jax.config.settings import (
    Config,
    ConfigError,
    default_config,
    from_config_dict,
)
from retinanet_jax.config.settings_tree import suggest


def explain_unknown_field(path: str) -> str:
    """Explains what is wrong with a field name on the command line, such as 'model.bakbone'."""
    known: Any = default_config().to_dict()
    done = "config"
    for name in path.split("."):
        if not isinstance(known, dict):
            return f"{done}: is a value, not a section, and has no field {name}"
        if name not in known:
            return f"{done}.{name}: no such field; {suggest(name, known)}"
        known, done = known[name], f"{done}.{name}"
    return f"{done}: cannot be set this way"


_INSTALLED = Path(__file__).with_name("experiments")
_FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "experiments"


LOADED: set[Path] = set()
"""The experiment files whose code has run in this process."""


def experiment_paths() -> dict[str, Path]:
    """Returns the experiments in the package, by name: 'coco', 'paper/table1b'."""
    return {
        path.relative_to(_FOLDER).with_suffix("").as_posix(): path
        for path in sorted(_FOLDER.glob("*.py")) + sorted(_FOLDER.glob("paper/*.py"))
    }


def find_experiment(location: str) -> tuple[Path, str]:
    """Returns file and variant of 'coco', 'coco:r101', 'experiments/coco.py' or any other file.

    Raises:
        ConfigError: no such file and no experiment of this name.
    """
    name, _, variant = location.partition(":")
    path = Path(name)
    if path.is_file():
        return path, variant
    packaged = experiment_paths()
    known = packaged.get(path.with_suffix("").as_posix().removeprefix("experiments/"))
    if known is not None and path.suffix in ("", ".py"):
        return known, variant
    raise ConfigError(
        f"--config: no such file: {name}{_near(path)}; experiments by name: {', '.join(packaged)}"
    )


def experiment_name(location: str) -> str:
    """Returns a name for the folder of a run: 'coco', or 'folder_small' with a variant."""
    path, variant = find_experiment(location)
    return f"{path.stem}_{variant}" if variant else path.stem


def load_experiment(location: str) -> ConfigDict:
    """Runs `get_config` of an experiment: 'coco', 'coco:r101' or 'experiments/coco.py:r101'.

    Raises:
        ConfigError: no such file or variant, or the file has no get_config.
    """
    path, variant = find_experiment(location)
    spec = importlib.util.spec_from_file_location("experiment", path)
    if spec is None:
        raise ConfigError(f"--config: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    LOADED.add(path.resolve())
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        where = traceback.format_exc(limit=-1).rstrip()
        raise ConfigError(f"--config: {path} raised an error:\n{where}") from error
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config: {path} has no function get_config()")
    return module.get_config(variant) if variant else module.get_config()


def _near(path: Path) -> str:
    """The folder that was searched, or a file or an experiment with a similar name."""
    if not path.suffix and (close := difflib.get_close_matches(path.stem, experiment_paths(), n=1)):
        return f"; did you mean {close[0]}?"
    files = [file.name for file in path.parent.glob("*.py")]
    if close := difflib.get_close_matches(f"{path.stem}.py", files, n=1):
        return f"; did you mean {path.with_name(close[0])}?"
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def choose_variant(variants: dict[str, Any], name: str) -> Any:
    """Returns an experiment's variant by name; raises ConfigError with all names if unknown."""
    if name not in variants:
        close = difflib.get_close_matches(name, variants, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"variant {name!r} is not one of {', '.join(map(repr, variants))}{hint}")
    return variants[name]


def load_config(location: str, **fields: Any) -> Config:
    """Returns the configuration of an experiment, with some fields changed.

    >>> load_config("shapes", train__steps=100)                            # doctest: +SKIP

    Args:
        location: name or file of an experiment, with a variant if it has any: 'folder:small',
            'experiments/folder.py:small'.
        fields: values by SECTION__FIELD, like --config.SECTION.FIELD=VALUE on the command line.

    Raises:
        ConfigError: the experiment, variant or field does not exist, or a value is invalid.
    """
    tree = load_experiment(location)
    for name, value in fields.items():
        *sections, field = name.split("__")
        try:
            target = functools.reduce(operator.getitem, sections, tree)
            target[field] = value
        except (AttributeError, KeyError) as error:
            raise ConfigError(explain_unknown_field(name.replace("__", "."))) from error
        except (TypeError, OverflowError) as error:
            where, now = f"config.{name.replace('__', '.')}", target[field]
            if isinstance(now, ConfigDict):
                raise ConfigError(f"{where}: write its fields: {', '.join(now)}") from error
            raise ConfigError(
                f"{where}: {value!r} is invalid; write, for example, {now!r}"
            ) from error
    return from_config_dict(tree)
