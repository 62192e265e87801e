"""Public checkpoints as plain trees of variables: readers of files, and one key map per project."""

from retinanet_jax.weights.errors import WeightsError
from retinanet_jax.weights.keymap import Imported
from retinanet_jax.weights.torchvision import backbone_from_torchvision, detector_from_torchvision

__all__ = ["Imported", "WeightsError", "backbone_from_torchvision", "detector_from_torchvision"]
