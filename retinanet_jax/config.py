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

from retinanet_jax.anchors import AnchorConfig
from retinanet_jax.data.augmentation import AugmentationConfig, with_largest_scale
from retinanet_jax.data.canvas import PipelineConfig
from retinanet_jax.data.shapes import Difficulty
from retinanet_jax.data.splits import KINDS, parse_part
from retinanet_jax.detections import PostprocessConfig
from retinanet_jax.losses import LossConfig
from retinanet_jax.matching import MatchingConfig
from retinanet_jax.mesh import MeshConfig
from retinanet_jax.metrics.coco_backends import check_backend
from retinanet_jax.models import ModelConfig, PixelConfig
from retinanet_jax.optimizer import OptimizerConfig


class ConfigError(ValueError):
    """A field that does not exist or a value that cannot be; the message says what to write."""


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}: {value!r} is not one of {', '.join(allowed)}")


@dataclasses.dataclass(frozen=True)
class ShapesConfig(Difficulty):
    """The built-in data set (data name 'shapes'); how hard it is: see Difficulty, data/shapes.py.

    Attributes:
        image_size: height and width in pixels.
        num_train: images of the split 'train'.
        num_eval: images of the split 'validation', drawn from another random stream.
        seed: of the drawing; independent of the seed of training.
    """

    image_size: tuple[int, int] = (128, 128)
    num_train: int = 20_000
    num_eval: int = 200
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and how strict to be with them.

    Attributes:
        name: 'shapes' (built in), 'folder' (COCO format), 'coco' (TFDS coco/2017), 'coco2014',
            'voc' (2007+2012), 'voc2007' or 'voc2012'; their splits: see data/dataset.py.
        root: folder: the folder with images/ and annotations/; coco and voc: the TFDS data
            directory, '' being ~/tensorflow_datasets.
        cache_dir: where a folder is prepared, once, as an ArrayRecord data set, and where compiled
            programs are kept for the next start.
        train_split: TFDS split or slice of one, such as 'train' or 'train[:90%]'.
        eval_split: likewise.
        annotations: official annotation file (COCO instances JSON) to evaluate against; '' takes
            the folder's own, and for coco rebuilds it from TFDS (see data/dataset.py).
        mix: further data sets to train on, each as KIND:ROOT:SPLIT or KIND:ROOT:SPLIT*N, KIND being
            a `name`; their pictures come N times an epoch, their categories are found by name among
            those of train_split (see data/mix.py).
        on_error: 'strict' stops with a list of all bad images and annotations; 'skip' leaves them
            out, and says which and how many, at the start and at the end.
    """

    name: str = "shapes"
    root: str = ""
    cache_dir: str = "~/.cache/retinanet_jax"
    train_split: str = "train"
    eval_split: str = "validation"
    annotations: str = ""
    mix: tuple[str, ...] = ()
    on_error: str = "strict"
    shapes: ShapesConfig = ShapesConfig()

    def __post_init__(self):
        _one_of("data.name", self.name, tuple(KINDS))
        _one_of("data.on_error", self.on_error, ("strict", "skip"))
        for text in self.mix:
            parse_part(text)
        if self.name == "folder" and not self.root:
            raise ValueError(
                "data.root: is empty; write --config.data.root=FOLDER, a folder that holds images/ "
                "and annotations/instances_<split>.json"
            )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The run.

    Attributes:
        steps: updates in all (paper, section 4: 90k).
        batch_size: images per update over all devices (paper: 16).
        log_every: updates between two lines of the log.
        checkpoint_every: updates between two checkpoints; one more is written at the end, and one
            before each evaluation.
        keep_checkpoints: how many of the latest are kept.
        evaluate_every: updates between two evaluations; 0 evaluates at the end only.
        max_skipped: updates in a row that are left out where the loss or a gradient is not finite;
            the next one ends the run. 0, as in detectron2 and torchvision's references, ends it at
            the first: with bfloat16 and float32 such a step is a fault and no rounding.
        watchdog_minutes: without progress, until it is said where the run hangs; 0 never.
    """

    steps: int = 90_000
    batch_size: int = 16
    log_every: int = 50
    checkpoint_every: int = 5_000
    keep_checkpoints: int = 3
    evaluate_every: int = 0
    max_skipped: int = 0
    watchdog_minutes: float = 10.0

    def __post_init__(self):
        for field in ("steps", "batch_size", "log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, field) < 1:
                raise ValueError(f"train.{field}: {getattr(self, field)} must be at least 1")
        if self.evaluate_every < 0:
            raise ValueError(
                f"train.evaluate_every: {self.evaluate_every} must be 0 (at the end only) or more"
            )
        for field in ("max_skipped", "watchdog_minutes"):
            if getattr(self, field) < 0:
                raise ValueError(f"train.{field}: {getattr(self, field)} must not be negative")

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after update `step`: an evaluation never holds the only copy
        of a state."""
        every = self.checkpoint_every
        return step % every == 0 or step == self.steps or self.evaluates_after(step)

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation in mid-run is due after update `step`."""
        every = self.evaluate_every
        return every > 0 and step % every == 0 and step < self.steps


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a checkpoint is judged.

    Attributes:
        metric: 'coco' (twelve numbers) or 'voc' (11-point and all-point AP at IoU .5).
        backend: of 'coco': 'pycocotools', the official one, or 'hotcoco', the same numbers in a
            thirtieth of the time (an extra: pip install 'retinanet_jax[fast]').
        batch_size: images at a time over all devices.
        pictures: images shown with ground truth beside detections.
        picture_score: lowest score drawn in the pictures (AP counts all of them).
    """

    metric: str = "coco"
    backend: str = "pycocotools"
    batch_size: int = 16
    pictures: int = 8
    picture_score: float = 0.4

    def __post_init__(self):
        _one_of("evaluation.metric", self.metric, ("coco", "voc"))
        check_backend(self.backend)
        if self.batch_size < 1:
            raise ValueError(f"evaluation.batch_size: {self.batch_size} must be at least 1")
        if self.pictures < 0:
            raise ValueError(f"evaluation.pictures: {self.pictures} must not be negative")


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
