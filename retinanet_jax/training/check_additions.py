"""Checks the functions that the user added to tables, before a run reads its images.

Only shapes are computed, and only functions of others are checked: those of this package have
tests. An error inside such a function is raised as it is, with its traceback.
"""

import functools
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from retinanet_jax.config.settings import Config, ConfigError
from retinanet_jax.core.anchors import feature_shapes
from retinanet_jax.core.backbones import BACKBONES
from retinanet_jax.core.box_losses import BOX_LOSSES
from retinanet_jax.core.focal import CLASS_LOSSES, ClassLoss
from retinanet_jax.core.matching import ASSIGNERS, ImageAnchors
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.training.evaluation import METRICS

_SIZE = 96, 160  # of the image; objects and anchors for the checks are as few


def check_additions(config: Config, num_classes: int, eval_set: Dataset) -> None:
    """Checks losses, assigner, backbone and metric of a run, if they are the user's.

    Raises:
        ConfigError: one returns what the run cannot use.
    """
    if _is_own(BACKBONES[config.model.backbone]):
        _check_backbone(config)
    if _is_own(CLASS_LOSSES[config.loss.classification].of_each):
        _check_class_loss(config, num_classes)
    if config.loss.box in BOX_LOSSES and _is_own(BOX_LOSSES[config.loss.box]):
        boxes = _float(6, 4)
        found = jax.eval_shape(BOX_LOSSES[config.loss.box], boxes, boxes)
        _require_losses("loss.box", config.loss.box, found, (6,), "a pair of boxes")
    if _is_own(ASSIGNERS[config.matching.assigner].match):
        _check_assigner(config, num_classes)
    if _is_own(METRICS[config.evaluation.metric]):
        _check_metric(config, eval_set)


def _is_own(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return not str(getattr(function, "__module__", "")).startswith("retinanet_jax.")


def _float(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _require(holds: bool, field: str, name: str, message: str) -> None:
    if not holds:
        raise ConfigError(f"config.{field}: {name!r} {message}")


def _require_losses(field: str, name: str, found: Any, shape: tuple[int, ...], each: str) -> None:
    is_array = isinstance(found, jax.ShapeDtypeStruct)
    fits = is_array and found.shape == shape and jnp.issubdtype(found.dtype, jnp.floating)
    what = f"{found.dtype}{list(found.shape)}" if is_array else type(found).__name__
    fix = f"return an unreduced loss of each one, float32{list(shape)}"
    _require(fits, field, name, f"returned {what}; {fix} here, one for {each}")


def _check_class_loss(config: Config, num_classes: int) -> None:
    name, shape = config.loss.classification, (2, 6, num_classes)
    loss = CLASS_LOSSES[name]
    targets = jax.ShapeDtypeStruct(shape, jnp.float32 if loss.of_quality else jnp.bool_)
    focal = jax.tree.map(jnp.float32, config.loss.focal)
    found = jax.eval_shape(loss.of_each, _float(*shape), targets, focal)
    _require_losses("loss.classification", name, found, shape, "a class of an anchor")
    if loss.elementwise:
        fix = "depends on other logits or on the class; leave out elementwise=True"
        _require(_is_elementwise(loss, focal), "loss.classification", name, fix)


def _is_elementwise(loss: ClassLoss, focal: Any) -> bool:
    """Whether the loss of each logit is the same alone and beside others."""
    logits = jnp.linspace(-3, 3, 12).reshape(3, 4)
    targets = jnp.eye(3, 4, dtype=jnp.float32 if loss.of_quality else jnp.bool_)
    try:
        together = loss.of_each(logits, targets, focal)
    except (TypeError, ValueError):  # four classes do not fit its weights
        return False
    alone = [
        loss.of_each(logit[None, None], target[None, None], focal)[0, 0]
        for logit, target in zip(logits.ravel(), targets.ravel(), strict=True)
    ]
    return np.allclose(together.ravel(), jnp.stack(alone), rtol=1e-4, atol=1e-6)


def _check_assigner(config: Config, num_classes: int) -> None:
    name, per_location = config.matching.assigner, config.anchors.anchors_per_location
    sizes = tuple(h * w * per_location for h, w in feature_shapes(_SIZE, config.anchors))
    objects = _float(4, 4), jnp.arange(4) % num_classes, jnp.ones(4, bool)
    image = ImageAnchors(
        *(_float(sum(sizes), 4), sizes, per_location, *objects),
        class_logits=tuple(_float(size, num_classes) for size in sizes),
        box_deltas=tuple(_float(size, 4) for size in sizes),
    )

    def match(*arrays: Any) -> Any:
        given = dict(zip(_ARRAYS, arrays, strict=True))
        return ASSIGNERS[name].match(image._replace(**given), config.matching)

    found = jax.eval_shape(match, *(getattr(image, field) for field in _ARRAYS))
    is_array = isinstance(found, jax.ShapeDtypeStruct)
    fits = is_array and found.shape == (sum(sizes),) and jnp.issubdtype(found.dtype, jnp.integer)
    what = f"{found.dtype}{list(found.shape)}" if is_array else type(found).__name__
    fix = "return the index of the box of each anchor, NEGATIVE or IGNORE"
    message = f"returned {what} for {sum(sizes)} anchors; {fix}, int32[{sum(sizes)}] here"
    _require(fits, "matching.assigner", name, message)


_ARRAYS = "anchors", "gt_boxes", "gt_labels", "valid", "class_logits", "box_deltas"


def _check_backbone(config: Config) -> None:
    name, module = config.model.backbone, BACKBONES[config.model.backbone](config.model)

    def features(key: Any, images: Any) -> Any:
        return module.init_with_output(key, images, train=False)[0]

    found = jax.eval_shape(features, jax.random.key(0), _float(1, *_SIZE, 3))
    _require(isinstance(found, Mapping), "model.backbone", name, "must return {level: features}")
    for level in config.model.backbone_levels:
        fix = (
            f"return them, or set config.model.backbone_levels; it has {', '.join(map(str, found))}"
        )
        _require(level in found, "model.backbone", name, f"has no features of level {level}; {fix}")
        wanted = tuple(-(-side // 2**level) for side in _SIZE)
        what = f"returned {found[level].shape} as level {level} of images of {_SIZE}"
        fix = f"its stride must be {2**level}, which gives (1, {wanted[0]}, {wanted[1]}, channels)"
        fits = found[level].ndim == 4 and found[level].shape[1:3] == wanted
        _require(fits, "model.backbone", name, f"{what}; {fix}")


def _check_metric(config: Config, eval_set: Dataset) -> None:
    name = config.evaluation.metric
    found = METRICS[name]([], eval_set, config)
    fits = (
        isinstance(found, tuple)
        and len(found) == 2
        and all(isinstance(part, Mapping) for part in found)
        and all(isinstance(x, numbers.Real) for part in found for x in part.values())
        and len(found[0]) > 0
    )
    fix = "return numbers by name, at least one, and numbers by class: ({'AP': .5}, {})"
    _require(fits, "evaluation.metric", name, f"returned {found!r:.200} without detections; {fix}")
