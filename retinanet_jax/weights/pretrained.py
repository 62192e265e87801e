"""Pretrained weights as the starting point of a run: config.model.pretrained."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from retinanet_jax.config.recipes import RECIPES
from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.core.retinanet import ModelConfig
from retinanet_jax.weights.keymap import Imported
from retinanet_jax.weights.locations import fetch
from retinanet_jax.weights.network import read_backbone, refuse_deep_stem
from retinanet_jax.weights.projects import BACKBONE, Source, import_detector, recognise
from retinanet_jax.weights.readers import read_state_dict
from retinanet_jax.weights.torchvision import backbone_from_torchvision, unfold
from retinanet_jax.weights.weights_error import WeightsError


def load_pretrained(
    location: str,
    variables: Mapping[str, Any],
    config: ModelConfig,
    anchors: AnchorConfig | None = None,
) -> Imported:
    """Fills an initialised network with what a checkpoint has of it.

    A backbone (torchvision's or timm's keys) fills the backbone; a RetinaNet of torchvision,
    detectron2 or MMDetection fills all but a class output for other classes. What the checkpoint
    lacks stays random: `summary()` of the result says what. A detector expects more of the config
    than the network: give it the project's recipe (retinanet_jax.config.recipes.with_recipe).

    Args:
        location: path, URL or hf://owner/name/file.
        variables: an initialised {'params', 'batch_stats'}.
        config: backbone, norm, norm_epsilon, stride_on and relu_before_p7 are read.
        anchors: of the run; in another order the outputs of a detector would be mixed up. None: not
            checked.

    Raises:
        WeightsError: the file cannot be read, its network is another one, or it cannot be used
            with live batch norm.
    """
    path = fetch(location)
    state = read_state_dict(path)
    try:
        imported = _import(state, variables, config, anchors)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    wrong = [line for line in imported.misshapen if " for backbone/" in line]
    if wrong:
        raise WeightsError(
            f"{path}: is not a part of a {config.backbone}: {'; '.join(wrong[:3])}; name the "
            "backbone that it is in config.model.backbone"
        )
    if config.norm == "batch" and len(unfold(state, config.norm_epsilon)) > len(state):
        raise WeightsError(
            f"{path}: has its batch norm folded into the convolutions, so that live batch norm "
            "would undo it; write config.model.norm='frozen_batch'"
        )
    return imported


def _import(
    state: Mapping[str, np.ndarray],
    variables: Mapping[str, Any],
    config: ModelConfig,
    anchors: AnchorConfig | None,
) -> Imported:
    source, epsilon = recognise(state), float(config.norm_epsilon)
    _check_backbone(source, state, config)
    if source is BACKBONE:
        return backbone_from_torchvision(state, variables, norm_epsilon=epsilon, partial=True)
    _check_conventions(source, config, anchors)
    return import_detector(source, state, variables, norm_epsilon=epsilon, partial=True)


def _check_backbone(source: Source, state: Mapping[str, np.ndarray], config: ModelConfig) -> None:
    refuse_deep_stem(state, source.key_of)
    try:
        found = read_backbone(state, source.key_of)
    except WeightsError:
        return  # a part of one: what fits is taken
    if found != config.backbone:
        raise WeightsError(
            f"its backbone is a {found}; write config.model.backbone={found!r} in place of "
            f"{config.backbone!r}"
        )


def _check_conventions(source: Source, config: ModelConfig, anchors: AnchorConfig | None) -> None:
    """Refuses what fits by its shapes and yet is another network."""
    ours = {f"model.{field}": getattr(config, field) for field in ("stride_on", "relu_before_p7")}
    if anchors is not None:
        ours["anchors.order"] = anchors.order
    for field, value in ours.items():
        allowed = {RECIPES[recipe][field] for recipe in source.recipes}
        if value not in allowed:
            raise WeightsError(
                f"it is a RetinaNet of {source.name}, which has {field} {allowed.pop()!r}, not "
                f"{value!r}; build the config by with_recipe(config, {source.recipes[0]!r})"
            )
