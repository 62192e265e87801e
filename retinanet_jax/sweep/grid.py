"""The axes of a sweep: fields of the config with their values, as on the command line.

    loss.gamma=0,0.5,1                  a field and its values, separated by commas
    anchors.scales=(1.0,),(1.0,1.26)    commas in brackets belong to a value

An axis is a sequence of settings. The trials of a sweep are the product of its axes.
"""

import ast
import functools
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from retinanet_jax.config.experiment_files import explain_unknown_field
from retinanet_jax.config.settings import ConfigError

Settings = dict[str, Any]
Axis = Sequence[Settings]

# Commas outside of brackets. No field of a config is a tuple of tuples.
_COMMA = re.compile(r",(?![^(\[]*[)\]])")
_LONGEST = 120  # characters of a trial's name; file systems allow 255 bytes


def grid_axis(text: str, tree: ConfigDict) -> Axis:
    """One field: 'loss.gamma=0,1,2'.

    Args:
        text: the field and its values.
        tree: config with the field, whose value has the type to parse.

    Raises:
        ConfigError: no such field, or an invalid value.
    """
    field, values = parse_field(text, tree)
    return [{field: value} for value in values]


def zip_axis(texts: Sequence[str], tree: ConfigDict) -> Axis:
    """Fields that change together: all first values, all second values, and so on.

    Raises:
        ConfigError: as in `grid_axis`, or the numbers of values differ.
    """
    parsed = [parse_field(text, tree) for text in texts]
    if len({len(values) for _, values in parsed}) > 1:
        counts = ", ".join(f"{field} has {len(values)}" for field, values in parsed)
        raise ConfigError(f"--zip: give every field the same number of values; {counts}")
    fields, columns = zip(*parsed, strict=True)
    return [dict(zip(fields, row, strict=True)) for row in zip(*columns, strict=True)]


def parse_field(text: str, tree: ConfigDict) -> tuple[str, list[Any]]:
    """'SECTION.FIELD=VALUE,VALUE' as the field's name and its values."""
    field, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"{text}: write SECTION.FIELD=VALUE,VALUE, such as loss.gamma=0,1,2")
    now: Any = tree
    try:
        for name in field.split("."):
            section, now = now, now[name]
    except (KeyError, TypeError, IndexError):
        raise ConfigError(explain_unknown_field(field)) from None
    if isinstance(now, ConfigDict):
        raise ConfigError(f"config.{field}: is a section; name one of its fields, {', '.join(now)}")
    takes_words = section.get_type(name) is object  # 'none' or 'auto' beside numbers
    parse = parse_word if takes_words else functools.partial(parse_value, now=now, field=field)
    return field, [parse(part.strip()) for part in _COMMA.split(values)]


def parse_word(text: str) -> Any:
    """A number, or the text as it is; `from_config_dict` checks it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_value(text: str, now: Any, field: str) -> Any:
    """A value of the type that the field has now."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", tuple: "(1.0, 2.0)"}
    try:
        if isinstance(now, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(now, tuple):
            value = ast.literal_eval(text)
            return value if isinstance(value, tuple) else (value,)
        return type(now)(text)
    except (KeyError, ValueError, SyntaxError):
        fix = kinds.get(type(now), f"a {type(now).__name__}")
        raise ConfigError(f"config.{field}: {text!r} is invalid; write {fix}") from None


def product(axes: Iterable[Axis]) -> list[Settings]:
    """All combinations; the first axis changes slowest.

    Raises:
        ConfigError: a field is in two axes, or a combination occurs twice.
    """
    axes = list(axes)
    fields = [sorted({field for settings in axis for field in settings}) for axis in axes]
    for one, other in itertools.combinations(fields, 2):
        if both := set(one) & set(other):
            raise ConfigError(f"{', '.join(sorted(both))}: varied twice; name each field once")
    combined = [
        {field: value for settings in parts for field, value in settings.items()}
        for parts in itertools.product(*axes)
    ]
    for settings in combined:
        if combined.count(settings) > 1:
            raise ConfigError(
                f"{name_of(settings, settings)}: appears twice; write each value once"
            )
    return combined


def name_of(settings: Settings, fields: Iterable[str]) -> str:
    """The name of a trial, which is that of its folder: 'gamma=2,alpha=0.25,seed=0'.

    Args:
        settings: settings of the trial.
        fields: all that the sweep varies. Those with equal last parts get their whole names.
    """
    endings = [field.rpartition(".")[2] for field in fields]
    parts = []
    for field, value in settings.items():
        ending = field.rpartition(".")[2]
        parts.append(f"{field if endings.count(ending) > 1 else ending}={_plain(value)}")
    name = ",".join(parts) or "base"
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def _plain(value: Any) -> str:
    """A value in characters that are valid for all file systems and shells."""
    if isinstance(value, tuple):
        return "x".join(_plain(part) for part in value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]", "_", text)
