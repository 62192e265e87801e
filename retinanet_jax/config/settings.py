"""The configuration of a run: one tree of typed sections, their defaults and their checks.

An experiment file returns an `ml_collections.ConfigDict` (see `experiments/`), so you can set every
field on the command line. `from_config_dict` checks it and builds the frozen `Config` that the
program uses. The docstring of each section gives the meaning, unit and source of its fields:
AnchorConfig, MatchingConfig, LossConfig, PostprocessConfig, ModelConfig, PixelConfig,
PipelineConfig, AugmentationConfig, MeshConfig, and those of sections.py.

Two words stand for what a number cannot express. 'none' turns a field off: None is written 'none'
in the tree and on the command line. 'auto' leaves the choice to `_choose_auto`, or, for fields that
depend on data and devices, to training/run_length.py, data_choices.py, auto_batch_size.py and
auto_learning_rate.py.
"""

import copy
import dataclasses
import importlib
import json
import os
from pathlib import Path

from ml_collections import ConfigDict

from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.config.migration import migrate
from retinanet_jax.config.sections import EvaluationConfig, OptimizerConfig, TrainConfig
from retinanet_jax.config.settings_tree import (
    DERIVED,
    build_section,
    check_names,
    fill_tree,
    to_tree,
)
from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.core.field_checks import says_unknown_name
from retinanet_jax.core.layers import PixelConfig
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import ASSIGNERS, MatchingConfig
from retinanet_jax.core.postprocess import PostprocessConfig
from retinanet_jax.core.retinanet import ModelConfig
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig, with_largest_scale
from retinanet_jax.data.pipeline.canvas import PipelineConfig
from retinanet_jax.runtime.mesh import MeshConfig


class ConfigError(ValueError):
    """An unknown field or an invalid value; the message names the field, the value and the fix."""


class UsageError(ConfigError):
    """Missing or unknown arguments of a command; the message is shown without the class."""


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run. `seed` determines initial weights, data order and augmentation."""

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

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} must be at least 0")


def default_config() -> ConfigDict:
    """Returns all fields with their defaults, as a locked tree from which experiments start."""
    tree = to_tree(Config())
    tree.model.norm = "auto"
    tree.model.frozen_stages = "auto"
    return tree


def from_config_dict(tree: ConfigDict) -> Config:
    """Checks every field and builds the typed configuration.

    Raises:
        ConfigError: the message lists all errors, one per line: field, value and what to write.
    """
    _import_user_modules()
    tree = _choose_auto(tree)
    errors: list[str] = []
    check_names(tree.to_dict(), default_config().to_dict(), "config", errors)
    if errors:
        raise ConfigError("\n".join(errors))
    # Entries that are no integers are errors of their own.
    levels = [level for level in tree.model.backbone_levels or () if isinstance(level, int)]
    derived = {
        "anchors": {
            "min_level": min(levels, default=3),
            "max_level": tree.model.max_level,
        }
    }
    config = build_section(Config, tree.to_dict(), derived, errors)
    if errors:
        raise ConfigError("\n".join(f"config.{error}" for error in errors))
    _check_together(config)
    if config.model.pretrained is None:  # random weights are never frozen
        config = dataclasses.replace(
            config, model=dataclasses.replace(config.model, frozen_stages=0)
        )
    return config


def _import_user_modules() -> None:
    """Imports the modules of RETINANET_JAX_IMPORT, which add backbones, losses and so on.

    Raises:
        ConfigError: one cannot be imported.
    """
    for name in filter(None, os.environ.get("RETINANET_JAX_IMPORT", "").split(",")):
        try:
            importlib.import_module(name.strip())
        except Exception as error:
            raise ConfigError(
                f"RETINANET_JAX_IMPORT={name}: {type(error).__name__}: {error}; name modules that "
                "Python can import, separated by commas, and set PYTHONPATH to their folder"
            ) from error


def _choose_auto(tree: ConfigDict) -> ConfigDict:
    """A copy in which each 'auto' is replaced by what suits pretrained or random weights.

    model.norm: frozen batch norm with pretrained weights, live batch norm without; the frozen
    statistics of random weights normalise nothing. model.frozen_stages: 2.
    optimizer.backbone_factor: 1 without pretrained weights; with them 0.3 under live batch norm,
    which a higher rate does not upset as much, else 0.1.
    """
    tree = copy.deepcopy(tree)
    model, optimizer = tree.get("model", {}), tree.get("optimizer", {})
    pretrained = model.get("pretrained") not in (None, "none")
    if model.get("norm") == "auto":
        model.norm = "frozen_batch" if pretrained else "batch"
    if model.get("frozen_stages") == "auto":
        model.frozen_stages = 2
    if optimizer.get("backbone_factor") == "auto":
        with_weights = 0.3 if model.get("norm") == "batch" else 0.1
        optimizer.backbone_factor = with_weights if pretrained else 1.0
    return tree


def _check_together(config: Config) -> None:
    """Rules between sections."""
    try:
        with_largest_scale(config.pipeline, config.augmentation)
    except ValueError as error:
        raise ConfigError(f"config.{error}") from error
    batch_size = config.train.batch_size
    if batch_size != "auto" and batch_size % config.optimizer.accumulate_steps:
        raise ConfigError(
            f"config.optimizer.accumulate_steps: {config.optimizer.accumulate_steps} does not "
            f"divide config.train.batch_size ({config.train.batch_size}); write a divisor of it"
        )
    assigner = config.matching.assigner
    if ASSIGNERS[assigner].needs_predictions and config.optimizer.accumulate_steps > 1:
        raise ConfigError(
            "config.optimizer.accumulate_steps: not supported with matching.assigner "
            f"{assigner!r}: its targets depend on predictions, so the positives of all parts "
            "cannot be counted in advance; write 1"
        )
    if config.model.norm == "frozen_batch" and config.model.pretrained is None:
        raise ConfigError(
            "config.model.norm: 'frozen_batch' needs pretrained weights; write 'auto', or set "
            "config.model.pretrained to a checkpoint"
        )
    if config.evaluation.metric == "voc" and config.data.name.startswith("coco"):
        raise ConfigError(
            f"config.evaluation.metric: 'voc' does not apply to config.data.name "
            f"{config.data.name!r}; write 'coco'"
        )


def check_batch_size(batch_size: int, devices: int, field: str, parts: int = 1) -> None:
    """Raises ConfigError if a batch, or a part of it, cannot be divided over the devices."""
    multiple = devices * parts
    if batch_size % multiple:
        nearest = max(1, round(batch_size / multiple)) * multiple
        divided = f" in {parts} parts (config.optimizer.accumulate_steps)" if parts > 1 else ""
        raise ConfigError(
            f"{field}: {batch_size} images{divided} cannot be divided evenly over {devices} "
            f"devices; write a multiple of {multiple}, such as {nearest}"
        )


def to_json(config: Config) -> str:
    """Returns the configuration as stored in workdirs and checkpoints, with null for 'none'."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> Config:
    """The inverse of `to_json`; also reads files of earlier versions.

    Raises:
        ConfigError: the text is damaged, or has a field that this version does not know.
    """
    try:
        tree = _filled_tree(migrate(json.loads(text)))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"not a stored configuration ({error})") from error
    try:
        return from_config_dict(tree)
    except ConfigError as error:
        if not says_unknown_name(str(error)):
            raise
        raise ConfigError(
            f"{error}\nIf your own module adds this name, set RETINANET_JAX_IMPORT=MODULE, and "
            "PYTHONPATH to the folder of the module"
        ) from error


def as_tree(config: Config) -> ConfigDict:
    """Returns the configuration as a tree, whose fields have the types of `default_config`."""
    return _filled_tree(json.loads(to_json(config))).lock()


def _filled_tree(values: dict) -> ConfigDict:
    """All fields with their defaults, and with stored values; not locked."""
    tree = default_config().unlock()
    for section, fields in DERIVED.items():
        for field in fields:
            values.get(section, {}).pop(field, None)
    fill_tree(tree, values)
    return tree


def read_config_file(path: Path) -> Config:
    """Reads the configuration in the config.json of a workdir.

    Raises:
        ConfigError: as in from_json; the message names the file.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also of bytes that are not UTF-8
        raise ConfigError(f"{path}: {error}") from error
