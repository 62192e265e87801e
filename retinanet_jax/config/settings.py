"""The whole configuration of a run: one tree of typed sections, its defaults, its errors.

An experiment file returns an `ml_collections.ConfigDict` (see `experiments/`), so that every field
can be overridden on the command line; `from_config_dict` turns it into the frozen `Config` that the
program uses, and checks it on the way. What a field means, its unit and its source stand in the
docstring of its section: AnchorConfig, MatchingConfig, LossConfig, PostprocessConfig, ModelConfig,
PipelineConfig, AugmentationConfig, OptimizerConfig, MeshConfig, and below.
"""

import dataclasses
import difflib
import json
import types
import typing
from typing import Any

from ml_collections import ConfigDict, config_dict

from retinanet_jax.config.sections import DataConfig, EvaluationConfig, OptimizerConfig, TrainConfig
from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.core.layers import PixelConfig
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import MatchingConfig
from retinanet_jax.core.postprocess import PostprocessConfig
from retinanet_jax.core.retinanet import ModelConfig
from retinanet_jax.data.pipeline.augmentation import AugmentationConfig, with_largest_scale
from retinanet_jax.data.pipeline.canvas import PipelineConfig
from retinanet_jax.runtime.mesh import MeshConfig


class ConfigError(ValueError):
    """A field that does not exist or a value that cannot be; the message says what to write."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A run, whole. `seed` is that of the weights, the order of the data and augmentation."""

    seed: int = 0
    data: DataConfig = DataConfig()
    pipeline: PipelineConfig = PipelineConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    pixels: PixelConfig = PixelConfig()
    model: ModelConfig = ModelConfig()
    anchors: AnchorConfig = AnchorConfig()
    matching: MatchingConfig = MatchingConfig()
    loss: LossConfig = LossConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


# Fields that follow from others: an experiment does not set them.
_DERIVED = {"anchors": ("min_level", "max_level"), "pipeline": ("process_index", "process_count")}


def default_config() -> ConfigDict:
    """All fields with their defaults, locked: the ground on which an experiment file builds.

    A field that may be None ("off") takes a negative number for it, since flags have no None.
    """
    return _to_config_dict(Config())


def _to_config_dict(section: Any, name: str = "") -> ConfigDict:
    result = ConfigDict()
    for field in dataclasses.fields(section):
        if field.name in _DERIVED.get(name, ()):
            continue
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            result[field.name] = _to_config_dict(value, field.name)
        elif _is_optional(field.type):
            off = -1.0 if value is None else value
            result[field.name] = config_dict.FieldReference(off, field_type=float)
        else:
            result[field.name] = value
    return result.lock()


def from_config_dict(tree: ConfigDict) -> Config:
    """Checks every field and builds the typed configuration.

    Raises:
        ConfigError: with all that is wrong, a line each: the field, the value, what to write.
    """
    tree = resolve_auto(tree)
    errors: list[str] = []
    _complain_of_unknown(tree.to_dict(), default_config().to_dict(), "config", errors)
    if errors:
        raise ConfigError("\n".join(errors))
    derived = {
        "anchors": {
            "min_level": min(tree.model.backbone_levels, default=3),
            "max_level": tree.model.max_level,
        }
    }
    config = _build(Config, tree.to_dict(), derived, errors)
    if errors:
        raise ConfigError("\n".join(f"config.{error}" for error in errors))
    _check_together(config)
    return config


def resolve_auto(tree: ConfigDict) -> ConfigDict:
    """Settles what depends on whether there are pretrained weights; returns a copy.

    `model.norm='auto'` is frozen batch norm with the statistics of `model.pretrained` where that is
    set, else live batch norm: frozen statistics of random weights normalise nothing. A negative
    `model.frozen_stages`, -2, or `optimizer.backbone_factor`, -0.1, holds (as 2, as 0.1) with
    pretrained weights only; without, no stage is frozen and the factor is 1.
    """
    tree = tree.copy_and_resolve_references()
    if tree.model.norm == "auto":
        tree.model.norm = "frozen_batch" if tree.model.pretrained else "batch"
    if tree.model.frozen_stages < 0:
        tree.model.frozen_stages = -tree.model.frozen_stages if tree.model.pretrained else 0
    if tree.optimizer.backbone_factor < 0:
        factor = -tree.optimizer.backbone_factor if tree.model.pretrained else 1.0
        tree.optimizer.backbone_factor = factor
    return tree


def _build(kind: type, values: dict[str, Any], derived: dict, errors: list[str]) -> Any:
    arguments: dict[str, Any] = {}
    before = len(errors)
    for field in dataclasses.fields(kind):
        if field.name not in values:
            continue
        value = values[field.name]
        if dataclasses.is_dataclass(field.type):
            value = {**value, **derived.get(field.name, {})}
            value = _build(field.type, value, derived, errors)
        elif isinstance(value, list | tuple):
            value = tuple(tuple(v) if isinstance(v, list) else v for v in value)
        elif _is_optional(field.type) and value is not None and value < 0:
            value = None
        arguments[field.name] = value
    if len(errors) > before:
        return None
    try:
        return kind(**arguments)
    except (ValueError, TypeError) as error:
        errors.append(str(error))
        return None


def _check_together(config: Config) -> None:
    """Rules between sections."""
    try:
        with_largest_scale(config.pipeline, config.augmentation)
    except ValueError as error:
        raise ConfigError(f"config.{error}") from error
    if config.optimizer.warmup_steps >= config.train.steps:
        raise ConfigError(
            f"config.optimizer.warmup_steps: {config.optimizer.warmup_steps} is not less than "
            f"config.train.steps, {config.train.steps}; the learning rate would never be reached: "
            "write a smaller one"
        )
    if config.train.batch_size % config.optimizer.accumulate_steps:
        raise ConfigError(
            f"config.optimizer.accumulate_steps: {config.optimizer.accumulate_steps} does not "
            f"divide config.train.batch_size, {config.train.batch_size}"
        )
    if config.model.frozen_stages and not config.model.pretrained:
        raise ConfigError(
            f"config.model.frozen_stages: {config.model.frozen_stages} would freeze random "
            "weights; write 0, or a checkpoint into config.model.pretrained"
        )
    if config.model.norm == "frozen_batch" and not config.model.pretrained:
        raise ConfigError(
            "config.model.norm: 'frozen_batch' without config.model.pretrained would normalise "
            "nothing; write 'batch' or 'group', or name a checkpoint"
        )
    if config.evaluation.metric == "voc" and config.data.name.startswith("coco"):
        raise ConfigError("config.evaluation.metric: 'voc' cannot judge coco; write 'coco'")


def check_batch_size(batch_size: int, devices: int, field: str) -> None:
    """Raises ConfigError where a batch cannot be divided over the devices."""
    if batch_size % devices:
        nearest = max(1, round(batch_size / devices)) * devices
        raise ConfigError(
            f"{field}: {batch_size} images cannot be divided over {devices} devices; "
            f"write a multiple of {devices}, such as {nearest}"
        )


def _complain_of_unknown(values: dict, known: dict, path: str, errors: list[str]) -> None:
    for name, value in values.items():
        if name not in known:
            errors.append(f"{path}.{name}: there is no such field; {suggest(name, known)}")
        elif isinstance(known[name], dict):
            _complain_of_unknown(value, known[name], f"{path}.{name}", errors)


def suggest(name: str, known: dict) -> str:
    """What a person may have meant by a name that is not among the known ones."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def to_json(config: Config) -> str:
    """The configuration as stored in the workdir and in each checkpoint."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> Config:
    """The inverse of `to_json`; fields that this version does not know are a ConfigError."""
    values = json.loads(text)
    for section, fields in _DERIVED.items():
        for field in fields:
            values.get(section, {}).pop(field, None)
    tree = default_config().copy_and_resolve_references().unlock()
    _fill(tree, values)
    return from_config_dict(tree)


def _fill(tree: ConfigDict, values: dict) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and name in tree:
            _fill(tree[name], value)
        else:
            tree[name] = -1.0 if value is None else _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _is_optional(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) and types.NoneType in typing.get_args(kind)
