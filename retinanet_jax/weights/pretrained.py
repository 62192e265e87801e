"""Pretrained weights as the starting point of a run: config.model.pretrained."""

from collections.abc import Mapping
from typing import Any

from retinanet_jax.models import ModelConfig
from retinanet_jax.weights.download import fetch
from retinanet_jax.weights.errors import WeightsError
from retinanet_jax.weights.keymap import Imported
from retinanet_jax.weights.readers import read_state_dict
from retinanet_jax.weights.torchvision import (
    backbone_from_torchvision,
    detector_from_torchvision,
    unfold,
)


def load_pretrained(
    location: str, variables: Mapping[str, Any], config: ModelConfig
) -> Imported:
    """Fills an initialised network with what a checkpoint has of it.

    A backbone (torchvision's or timm's keys) fills the backbone; a torchvision RetinaNet fills all
    but a class output for other classes. What the checkpoint lacks stays random: `summary()` of the
    result says what.

    Args:
        location: path, URL or hf://owner/name/file.
        variables: an initialised {'params', 'batch_stats'}.
        config: backbone, norm and norm_epsilon are read.

    Raises:
        WeightsError: the file cannot be read, its backbone is another one, or it cannot be used
            with live batch norm.
    """
    path = fetch(location)
    state = read_state_dict(path)
    is_detector = any(key.startswith("backbone.body.") for key in state)
    read = detector_from_torchvision if is_detector else backbone_from_torchvision
    imported = read(state, variables, norm_epsilon=config.norm_epsilon, partial=True)
    wrong = [line for line in imported.misshapen if " for backbone/" in line]
    if wrong:
        raise WeightsError(
            f"{path}: is not a {config.backbone}: {'; '.join(wrong[:3])}; name the backbone that it "
            "is in config.model.backbone"
        )
    if config.norm == "batch" and len(unfold(state, config.norm_epsilon)) > len(state):
        raise WeightsError(
            f"{path}: has its batch norm folded into the convolutions, so that live batch norm "
            "would undo it; write config.model.norm='frozen_batch'"
        )
    return imported
