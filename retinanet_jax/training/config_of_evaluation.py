"""The config of an evaluation or analysis: that of the checkpoint, with changes, or another one."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from retinanet_jax.config.run_changes import with_changes
from retinanet_jax.config.settings import Config, ConfigError
from retinanet_jax.runtime.user_folders import expand_user
from retinanet_jax.training.run_checks import changed_fields

OF_WEIGHTS = ("model", "anchors", "pixels")
_OF_TRAINING = ("seed", "augmentation", "optimizer", "train")
_RULES = ("max_log_scale", "clamp_both_sides", "clip_before_nms", "drop_empty")
# What the metrics depend on, apart from the weights, and what of it they do not.
_MEASURED = ("data.", "pipeline.min_side", "pipeline.max_side", "postprocess.", "evaluation.metric")
_NOT_MEASURED = ("data.cache_dir", "data.mix", "data.repeat_threshold")


def config_of_evaluation(
    stored: Config,
    given: Config | Mapping[str, Any] | None,
    of_weights: Sequence[str] = OF_WEIGHTS,
) -> Config:
    """Returns the config to evaluate a checkpoint with.

    Args:
        stored: config of the checkpoint.
        given: a config with the data and the thresholds, or values by 'SECTION.FIELD' that change
            those of the checkpoint; None changes nothing.
        of_weights: sections that are those of the checkpoint in each case.

    Raises:
        ConfigError: a change is invalid, or has no effect on an evaluation.
    """
    if isinstance(given, Config):
        return with_conventions_of(stored, given, of_weights)
    changed = with_changes(stored, given or {})
    config = with_conventions_of(stored, changed, (*of_weights, *_OF_TRAINING))
    if ignored := changed_fields(changed, config):
        raise ConfigError(
            f"config.{', config.'.join(ignored)}: only for training, or fixed by the checkpoint; "
            "leave it out (--step selects a checkpoint)"
        )
    return config


def measures_as_run(stored: Config, config: Config) -> bool:
    """Returns whether an evaluation has the data, image size, thresholds and metric of the run."""
    changes = changed_fields(*map(_with_whole_root, (stored, config)))
    return not any(name.startswith(_MEASURED) and name not in _NOT_MEASURED for name in changes)


def _with_whole_root(config: Config) -> Config:
    root = config.data.root and str(expand_user(config.data.root).resolve())
    return dataclasses.replace(config, data=dataclasses.replace(config.data, root=root))


def with_conventions_of(
    stored: Config, config: Config, sections: Sequence[str] = OF_WEIGHTS
) -> Config:
    """Returns `config` with sections and settings that belong to the weights of a checkpoint."""
    replace, pipeline = dataclasses.replace, config.pipeline
    boxes = stored.pipeline.max_boxes if pipeline.max_boxes == "auto" else pipeline.max_boxes
    return replace(
        config,
        **{name: getattr(stored, name) for name in sections},
        pipeline=replace(
            pipeline,
            max_boxes=boxes,
            eval_resizing=stored.pipeline.eval_resizing,
            eval_canvas=stored.pipeline.eval_canvas,
        ),
        postprocess=replace(
            config.postprocess, **{rule: getattr(stored.postprocess, rule) for rule in _RULES}
        ),
    )
