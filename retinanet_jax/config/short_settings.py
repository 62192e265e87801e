"""Short names for the settings that most runs change: --data, --epochs, --lr and so on."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retinanet_jax.config.settings import ConfigError

_FIELDS = {
    "data": "data.root",
    "epochs": "train.epochs",
    "steps": "train.steps",
    "batch_size": "train.batch_size",
    "weights": "model.pretrained",
    "lr": "optimizer.learning_rate",
}
SHORT_SETTINGS = (*_FIELDS, "image_size")


def short_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of config fields by 'section.field'.

    Args:
        given: values, or texts from the command line, by the names of SHORT_SETTINGS.

    Raises:
        ConfigError: both `epochs` and `steps` are set, or the image size is invalid.
    """
    if {"epochs", "steps"} <= given.keys():
        raise ConfigError(
            f"--epochs={given['epochs']} and --steps={given['steps']}: a run has one length; set "
            "one of them"
        )
    values = {_FIELDS[name]: value for name, value in given.items() if name in _FIELDS}
    # The other one may be a number in the experiment.
    if "epochs" in given:
        values["train.steps"] = "auto"
    if "steps" in given:
        values["train.epochs"] = "auto"
    if "image_size" in given:
        short, long = _sides(given["image_size"])
        values |= {"pipeline.min_side": short, "pipeline.max_side": long}
    return values


def expand_short_flags(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the command line with --config.SECTION.FIELD for short flags, and their values.

    With --data but no --config, --config=folder is added.

    Raises:
        ConfigError: as in `short_settings`, or a field is set twice.
    """
    rest, given, queue = [], {}, iter(words)
    for word in queue:
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name in SHORT_SETTINGS:
            given[name] = value if equals else next(queue, "")
        else:
            rest.append(word)
    values = short_settings(given)
    written = {word.lstrip("-").partition("=")[0].removeprefix("config.") for word in rest}
    check_set_once(given, written)
    if "data" in given and "config" not in written:
        rest.insert(1, "--config=folder")
    return rest + [f"--config.{field}={value}" for field, value in values.items()], given


def check_set_once(given: Mapping[str, Any], written: set[str]) -> None:
    """Raises ConfigError if a field among `written`, 'section.field', also has a short name set."""
    for name, value in given.items():
        for field in short_settings({name: value}):
            if field in written:
                raise ConfigError(f"--{name} and --config.{field} are both set; leave out one")


def run_name(data: str | Path) -> str:
    """Returns the name of a run on a folder or an annotation file: its name without the suffix."""
    path = Path(data).expanduser().resolve()
    return path.stem if path.suffix and not path.is_dir() else path.name


def _sides(size: Any) -> tuple[int, int]:
    """Short and long side of images, of 640, '640', '480x640' or (480, 640)."""
    text = "x".join(map(str, size)) if isinstance(size, tuple | list) else str(size)
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None or int(match[1]) == 0:
        raise ConfigError(
            f"--image_size: {text!r} is not a size in pixels; write the side of a square, such as "
            "640, or SHORTxLONG, such as 480x640"
        )
    sides = sorted((int(match[1]), int(match[2] or match[1])))
    return sides[0], sides[1]
