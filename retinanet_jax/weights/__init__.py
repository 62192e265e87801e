"""Public checkpoints as plain trees of variables, with the recipes by which they detect; and back.

loaded = load_checkpoint("retinanet_resnet50_fpn_v2_coco-5905b1c5.pth")
loaded.variables, loaded.config, loaded.categories, loaded.report.summary()
"""

from retinanet_jax.weights.keymap import Imported
from retinanet_jax.weights.loading import LoadedCheckpoint, load_checkpoint
from retinanet_jax.weights.torchvision import backbone_from_torchvision, detector_from_torchvision
from retinanet_jax.weights.torchvision_export import export_torchvision
from retinanet_jax.weights.weights_error import WeightsError

__all__ = [
    "Imported",
    "LoadedCheckpoint",
    "WeightsError",
    "backbone_from_torchvision",
    "detector_from_torchvision",
    "export_torchvision",
    "load_checkpoint",
]
