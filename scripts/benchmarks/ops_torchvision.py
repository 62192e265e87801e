"""Contestant of the benchmarks of operations: torchvision, without this package."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.extension import _has_ops
from torchvision.models import detection
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops import sigmoid_focal_loss

from benchmarks import inputs
from benchmarks.contestants import peak_memory, serve, time_calls

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Without its compiled extension, torchvision runs with an NMS that was registered in Python.
NAME = f"torchvision {torchvision.__version__}, torch {torch.__version__}"


def to_device(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).to(DEVICE)


def loss(num_anchors: int, num_classes: int) -> Callable[[], float]:
    """As RetinaNetClassificationHead.compute_loss: one-hot targets, without ignored rows."""
    logits, labels = map(to_device, inputs.loss_inputs(num_anchors, num_classes))
    logits.requires_grad_()

    def work() -> float:
        foreground = labels >= 0
        targets = torch.zeros_like(logits)
        targets[foreground, labels[foreground].long()] = 1.0
        valid = labels != inputs.IGNORE
        total = sigmoid_focal_loss(logits[valid], targets[valid], reduction="sum")
        total.backward()
        logits.grad = None
        return total.item()

    return work


def postprocess(shrink: int, num_classes: int) -> Callable[[], float]:
    """RetinaNet.postprocess_detections of one image, 100 detections."""
    levels = inputs.heads_outputs(shrink, num_classes)
    logits, deltas, anchors = (list(map(to_device, level)) for level in levels.values())
    outputs = {
        "cls_logits": [x[None] for x in logits],
        "bbox_regression": [x[None] for x in deltas],
    }
    size = tuple(side // shrink for side in inputs.CANVAS)
    model = detection.retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=num_classes, detections_per_img=100
    )

    @torch.no_grad()
    def work() -> float:
        (found,) = RetinaNet.postprocess_detections(model, outputs, [anchors], [size])
        return found["scores"].sum().item()

    return work


def suppress(num_boxes: int, max_outputs: int) -> Callable[[], float]:
    """torchvision::nms, which always computes all outputs; needs the compiled extension."""
    if not _has_ops():
        sys.exit("torchvision has no compiled NMS here")
    boxes, scores = map(to_device, inputs.crowded_boxes(num_boxes))
    return lambda: torchvision.ops.nms(boxes, scores, 0.5)[:max_outputs].sum().item()


def growth(work: Callable[[], float]) -> int:
    """Growth during a call, in bytes, of the memory of the GPU or of the process."""
    if DEVICE.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before = peak_memory("self")
    work()
    return peak_memory("self") - before


CASES = {"loss": loss, "postprocess": postprocess, "nms": suppress}

if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    case, *sizes = sys.argv[1:]
    work = CASES[case](*map(int, sizes))
    name = NAME if _has_ops() else f"{NAME}, NMS in Python"
    result = {"name": name, "result": work()}
    if case == "loss":
        # The growth includes the gradient, a result of the size of the input.
        result["temporary"] = growth(work) / (4 * math.prod(map(int, sizes))) - 1
    serve(lambda: time_calls(work, 10 if case == "nms" else 1) | result)
