"""Converts between the tree of an experiment, `ml_collections.ConfigDict`, and typed sections.

A section is a frozen dataclass. A field that takes a number or a word ('none', 'auto') has the type
object in the tree, so the command line accepts both.
"""

import dataclasses
import numbers
import types
import typing
from typing import Any

from ml_collections import ConfigDict, config_dict

from retinanet_jax.runtime.wording import did_you_mean

# Fields that are computed from other fields; an experiment does not set them.
DERIVED = {"anchors": ("min_level", "max_level"), "pipeline": ("process_index", "process_count")}
# Fields that take 'auto', by default or on demand. The first become a value in settings.py, those
# at the start of a run in training/run_length.py, data_choices.py, auto_batch_size.py and
# auto_learning_rate.py.
_AUTO = ("model.norm", "model.frozen_stages", "optimizer.backbone_factor")
_AUTO_AT_START = (
    "train.steps",
    "train.epochs",
    "train.evaluate_every",
    "train.batch_size",
    "train.memory_limit",
    "optimizer.learning_rate",
    "anchors.size",
    "pipeline.max_boxes",
)
_IN_WORDS = {float: "a number", int: "a whole number", str: "a text in quotes"}


def to_tree(section: Any, name: str = "") -> ConfigDict:
    """Returns a section and its subsections as a locked tree; `name` is the section's name."""
    result = ConfigDict()
    for field in dataclasses.fields(section):
        if field.name in DERIVED.get(name, ()):
            continue
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            value = to_tree(value, field.name)
        elif _takes_word(f"{name}.{field.name}", field.type):
            # Of type object, so that a number and a word are accepted.
            written = "none" if value is None else value
            value = config_dict.FieldReference(written, field_type=object)
        result[field.name] = value
    return result.lock()


def _takes_word(field: str, kind: Any) -> bool:
    """Whether a field holds a number or a word."""
    takes_auto = field in (*_AUTO, *_AUTO_AT_START)
    return types.NoneType in typing.get_args(kind) or (takes_auto and kind is not str)


def build_section(
    kind: type, values: dict[str, Any], derived: dict, errors: list[str], path: str = ""
) -> Any:
    """Builds a section from the values of a tree; returns None if one is invalid.

    Args:
        kind: dataclass of the section.
        values: values of its fields; other fields have their defaults.
        derived: by section, the fields that are computed from fields of other sections.
        errors: list to which a line is added for each invalid value.
        path: path of the section for these lines, such as 'data.shapes.'.
    """
    arguments: dict[str, Any] = {}
    before = len(errors)
    for field in dataclasses.fields(kind):
        if field.name not in values:
            continue
        value, name = values[field.name], f"{path}{field.name}"
        try:
            if dataclasses.is_dataclass(field.type):
                value = {**value, **derived.get(field.name, {})}
                value = build_section(field.type, value, derived, errors, f"{name}.")
            elif _takes_word(name, field.type):
                value = _read_word(name, value, field.type)
            elif value is None:  # which ml_collections takes for a value of any type
                raise ValueError(f"{name}: None is invalid; write {field.default!r}, for example")
            elif typing.get_origin(field.type) is tuple:
                value = _read_tuple(name, value, typing.get_args(field.type))
        except ValueError as error:
            errors.append(str(error))
        arguments[field.name] = value
    if len(errors) > before:
        return None
    try:
        return kind(**arguments)
    except (ValueError, TypeError, OverflowError) as error:
        errors.append(str(error))
        return None


def _read_word(field: str, value: Any, kind: Any) -> Any:
    """The value of a field that holds a number or a word, or a text or 'none'; None for 'none'.

    Raises:
        ValueError: neither; the message says what to write.
    """
    has_none, plain = types.NoneType in typing.get_args(kind), _plain(kind)
    if has_none and value in (None, "none"):
        return None
    if field in _AUTO_AT_START and value == "auto":
        return value
    word = "none" if has_none else "auto"
    wanted = "a path, a URL" if plain is str else _IN_WORDS[plain]
    if value == "" or not _is_of(value, plain):
        raise ValueError(f"{field}: {value!r} is invalid; write {wanted} or '{word}'")
    try:
        return plain(value)
    except OverflowError:
        raise ValueError(f"{field}: the number is too large; write {wanted} or '{word}'") from None


def _read_tuple(field: str, value: Any, kinds: tuple) -> tuple:
    """The value of a field of several numbers or texts; kinds are those of tuple[...].

    Raises:
        ValueError: another number of values, or one of another type.
    """
    values = tuple(value)
    if kinds[-1] is ...:
        kinds = kinds[:1] * len(values)
    if len(values) != len(kinds):
        raise ValueError(f"{field}: {values} has {len(values)} values; write {len(kinds)}")
    for one, kind in zip(values, kinds, strict=True):
        plain = _plain(kind)
        if not _is_of(one, plain):
            raise ValueError(f"{field}: {one!r} in {values} is not {_IN_WORDS[plain]}")
    return values


def _plain(kind: Any) -> type:
    """Returns float, int or str: the type of a field's values other than None and 'auto'."""
    kinds = typing.get_args(kind) or (kind,)
    return next(plain for plain in _IN_WORDS if plain in kinds)


def _is_of(value: Any, kind: type) -> bool:
    """Returns whether a value is a string, a whole number (also of NumPy) or any number."""
    allowed = {str: str, int: numbers.Integral, float: numbers.Real}[kind]
    return isinstance(value, allowed) and not isinstance(value, bool)


def check_names(values: dict, known: dict, path: str, errors: list[str]) -> None:
    """Adds a line to `errors` for each unknown name, and for each section that is not a dict."""
    for name, value in values.items():
        if name not in known:
            errors.append(f"{path}.{name}: no such field; {suggest(name, known)}")
        elif isinstance(known[name], dict) and not isinstance(value, dict):
            fields = ", ".join(known[name])
            errors.append(f"{path}.{name}: {value!r} is invalid; write its fields: {fields}")
        elif isinstance(known[name], dict):
            check_names(value, known[name], f"{path}.{name}", errors)


def suggest(name: str, known: dict) -> str:
    """Returns the closest known name, or all known names.

    Names with the same first word come before names that are spelled alike: of 'nms_threshold',
    'nms_iou' is the field that is meant, not 'score_threshold'.
    """
    first = [other for other in known if other.split("_")[0] == name.split("_")[0]]
    hint = did_you_mean(name, first, cutoff=0.4) or did_you_mean(name, known)
    return hint or f"the fields are {', '.join(known)}"


def fill_tree(tree: ConfigDict, values: dict) -> None:
    """Writes stored values into a tree: null as 'none', lists as tuples."""
    for name, value in values.items():
        if isinstance(value, dict) and name in tree:
            fill_tree(tree[name], value)
        else:
            tree[name] = "none" if value is None else _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
