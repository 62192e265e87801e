"""Floating point operations of training, and the fraction of a device's peak that a run reaches.

This is model FLOPs utilization (MFU) as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix
B): the operations that the network needs, without those that rematerialization repeats, divided by
the time and by the peak rate of the devices.
"""

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from retinanet_jax.config.settings import Config
from retinanet_jax.core.retinanet import ModelConfig, build_model, trainable_mask

SIDE = 512  # of the image whose operations are counted

# Dense bfloat16 products per second of a device, by words of its `device_kind`; the first match
# counts. NVIDIA: data sheets, without sparsity (V100 and T4: float16). TPUs: Google's
# documentation; v2, v3 and TPU7x are two devices a chip.
PEAKS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
}


class ModelFlops(NamedTuple):
    """Operations of a train step, and the peak rate of the devices.

    per_pixel: operations for each pixel of a batch.
    peak: dense bfloat16 operations per second of all devices together.
    """

    per_pixel: float
    peak: float

    def summary(self, canvas: tuple[int, int]) -> str:
        """Describes the operations per image on a canvas (height, width), and the peak."""
        height, width = canvas
        image = self.per_pixel * height * width
        return (
            f"training needs {image / 1e9:.3g} GFLOP per image of {height}x{width} pixels; MFU is "
            f"relative to {self.peak / 1e12:.4g} TFLOP/s, the bfloat16 peak of all devices"
        )

    def utilization(self, pixels: int, seconds: float) -> float:
        """Returns the fraction of the peak used by training on `pixels` pixels in `seconds`."""
        return self.per_pixel * pixels / (seconds * self.peak)


def run_flops(
    config: Config, variables: dict[str, Any], num_classes: int, devices: Iterable[jax.Device]
) -> ModelFlops | None:
    """Returns the operations of a run on its devices; None for CPUs and unknown devices."""
    peaks = [peak_rate(device) for device in devices]
    if None in peaks:
        return None
    anchors = config.anchors.anchors_per_location
    return ModelFlops(training_flops(config.model, variables, num_classes, anchors), sum(peaks))


def peak_rate(device: jax.Device) -> float | None:
    """Returns a device's dense bfloat16 operations per second; None if it is a CPU or unknown."""
    if device.platform == "cpu":
        return None
    kind = device.device_kind
    return next((peak for words, peak in PEAKS.items() if re.search(rf"\b{words}\b", kind)), None)


def training_flops(
    config: ModelConfig, variables: dict[str, Any], num_classes: int, anchors_per_location: int
) -> float:
    """Returns the operations of a train step per pixel of the canvas; a multiply-add counts two.

    Counts the matrix products and convolutions of the modules with a parameter 'kernel': one in the
    forward pass, one for the gradient of a trainable kernel, and one for the gradient of an input
    that depends on trainable kernels. Each module is assumed to depend on all modules called before
    it. Normalization, losses and the update are left out; they are below one percent.

    Args:
        config: configuration of the model.
        variables: variables of the model, as arrays or shapes.
        num_classes: number of classes of the dataset.
        anchors_per_location: number of anchors at each location.
    """
    model = build_model(
        dataclasses.replace(config, remat="none"), num_classes, anchors_per_location
    )
    trainable = _by_path(trainable_mask(variables["params"], config))
    total, depends_on_trainable = 0, False

    def count(call, args, kwargs, context):
        nonlocal total, depends_on_trainable
        result, module = call(*args, **kwargs), context.module
        has_kernel = isinstance(result, jax.Array) and module.has_variable("params", "kernel")
        if has_kernel and context.method_name == "__call__":
            positions = result.size // result.shape[-1]
            products = 2 * math.prod(module.get_variable("params", "kernel").shape) * positions
            updates = trainable.get((*module.path, "kernel"), True)
            total += products * (1 + updates + depends_on_trainable)
            depends_on_trainable |= updates
        return result

    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), "float32")
    with nn.intercept_methods(count):
        jax.eval_shape(lambda *inputs: model.apply(*inputs, train=False), variables, images)
    return total / SIDE**2


def _by_path(tree: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {tuple(entry.key for entry in path): leaf for path, leaf in leaves}
