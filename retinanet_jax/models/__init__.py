"""The networks, as Flax Linen modules."""

from retinanet_jax.models.layers import PixelConfig, normalize
from retinanet_jax.models.retinanet import (
    ModelConfig,
    Predictions,
    RetinaNet,
    build_model,
    trainable_mask,
)

__all__ = [
    "ModelConfig",
    "PixelConfig",
    "Predictions",
    "RetinaNet",
    "build_model",
    "normalize",
    "trainable_mask",
]
