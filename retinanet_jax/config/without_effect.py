"""Fields that have no effect beside others, such as loss.gamma with cross entropy.

A row is listed only if no value of its field changes what the run trains and evaluates. A name that
the user added may read any field of its section, so rows name the values without the effect.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from retinanet_jax.config.settings import Config, default_config, from_config_dict
from retinanet_jax.core.resnet import ARCHITECTURES


class Row(NamedTuple):
    """A field, when it has no effect, and the field that is the reason."""

    field: str
    unused: Callable[[Config], bool]
    reason: str


def _is(reason: str, *values: Any) -> Callable[[Config], bool]:
    """Whether the field `reason` has one of the values."""
    return lambda config: value_of(config, reason) in values


def _row(field: str, reason: str, *values: Any) -> Row:
    return Row(field, _is(reason, *values), reason)


_LOSS, _ASSIGNER = "loss.classification", "matching.assigner"
_HARD_NMS = "class_wise", "class_agnostic", "soft_linear"  # without a sigma
_SHALLOW = [name for name, built in ARCHITECTURES.items() if not built.bottleneck]
_OF_IOU = ("positive_iou", "negative_iou", "low_quality", "low_quality_min_iou")
_OF_ALIGNMENT = ("aligned_anchors", "aligned_score_power", "aligned_iou_power")

ROWS = (
    _row("loss.gamma", _LOSS, "cross_entropy"),
    _row("loss.alpha", _LOSS, "quality_focal"),
    _row("loss.star_beta", _LOSS, "focal", "cross_entropy", "quality_focal", "varifocal"),
    Row("loss.beta", lambda config: config.loss.box != "smooth_l1", "loss.box"),
    _row("loss.distribution_weight", "model.box_bins", 0),
    _row("loss.hard_examples_iou", "loss.hard_examples", None),
    *(_row(f"matching.{field}", _ASSIGNER, "atss", "task_aligned") for field in _OF_IOU),
    _row("matching.low_quality_min_iou", "matching.low_quality", "none"),
    _row("matching.atss_locations", _ASSIGNER, "iou", "task_aligned"),
    *(_row(f"matching.{field}", _ASSIGNER, "iou", "atss") for field in _OF_ALIGNMENT),
    _row("model.stride_on", "model.backbone", *_SHALLOW),
    _row("model.frozen_stages", "model.pretrained", None),
    Row(
        "model.norm_momentum",
        lambda config: config.model.backbone in ARCHITECTURES and config.model.norm != "batch",
        "model.norm",
    ),
    _row("optimizer.momentum", "optimizer.name", "adamw"),
    _row("optimizer.nesterov", "optimizer.name", "adamw"),
    _row("optimizer.decay_at", "optimizer.schedule", "cosine", "constant"),
    _row("optimizer.decay_factor", "optimizer.schedule", "cosine", "constant"),
    Row(
        "optimizer.decay",
        lambda config: config.optimizer.weight_decay == 0 and _is_ours(config.optimizer.name),
        "optimizer.weight_decay",
    ),
    _row("optimizer.warmup_factor", "optimizer.warmup_steps", 0),
    Row(
        "augmentation.close_mosaic",
        lambda config: config.augmentation == config.augmentation.of_single_images(),
        "augmentation.mosaic",
    ),
    Row("train.memory_limit", lambda config: config.train.batch_size != "auto", "train.batch_size"),
    Row(
        "evaluation.backend",
        lambda config: config.evaluation.metric != "coco",
        "evaluation.metric",
    ),
    _row("postprocess.soft_sigma", "postprocess.nms", *_HARD_NMS),
    _row("data.root", "data.name", "shapes"),
    _row("data.tile_overlap", "data.tile", None),
)


def _is_ours(optimizer: str) -> bool:
    return optimizer in ("sgd", "adamw")


def value_of(config: Config, field: str) -> Any:
    """The value of 'SECTION.FIELD'."""
    section, _, name = field.partition(".")
    return getattr(getattr(config, section), name)


def reason_without_effect(config: Config, field: str) -> str:
    """Why a field has no effect, 'loss.classification is cross_entropy'; '' if it may have one."""
    for row in ROWS:
        if row.field == field and row.unused(config):
            value = value_of(config, row.reason)
            return f"{row.reason} is {'none' if value is None else value}"
    return ""


def lines_without_effect(config: Config) -> list[str]:
    """A line for each field that differs from its default and has no effect."""
    plain = default_config()
    plain.model.pretrained = config.model.pretrained  # on which some defaults depend
    default, lines = from_config_dict(plain), []
    for field in dict.fromkeys(row.field for row in ROWS):
        value, reason = value_of(config, field), reason_without_effect(config, field)
        if reason and value != value_of(default, field):
            lines.append(f"config.{field}={value} has no effect: {reason}")
    return lines
