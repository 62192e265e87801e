"""Public checkpoints as trees of variables with their recipes; export to torchvision.

loaded = load_checkpoint("torchvision/retinanet_resnet50_fpn_v2")
loaded.variables, loaded.config, loaded.categories, loaded.report.summary()
"""

from retinanet_jax.weights.keymap import Imported
from retinanet_jax.weights.loading import LoadedCheckpoint, load_checkpoint, load_detector
from retinanet_jax.weights.public_weights import PUBLIC_WEIGHTS
from retinanet_jax.weights.torchvision import backbone_from_torchvision, detector_from_torchvision
from retinanet_jax.weights.torchvision_export import export_torchvision
from retinanet_jax.weights.weights_error import WeightsError

__all__ = [
    "PUBLIC_WEIGHTS",
    "Imported",
    "LoadedCheckpoint",
    "WeightsError",
    "backbone_from_torchvision",
    "detector_from_torchvision",
    "export_torchvision",
    "load_checkpoint",
    "load_detector",
]
