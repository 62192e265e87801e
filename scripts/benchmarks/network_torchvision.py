"""Contestant of infer.py, train.py and gpu.py: torchvision's RetinaNet v1, without this package.

Modes: 'eager'; 'channels_last', eager in that layout; 'compile': torch.compile of backbone and
heads, which take nearly all of the time. The rest depends on values and would break its graphs. On
a GPU the layout is always channels_last. On a CPU 'compile' starts from contiguous tensors, and the
compiler chooses the layout of each convolution.
"""

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable

import torch
import torchvision
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks import inputs
from benchmarks.contestants import serve

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.backends.cudnn.benchmark = True


def build(height: int, width: int, backbone: str, how: str) -> RetinaNet:
    """Norms, stem and res2 are frozen, as torchvision does for pretrained weights."""
    body = resnet_fpn_backbone(
        backbone_name=backbone,
        weights=None,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    sides = {"min_size": min(height, width), "max_size": max(height, width)}
    model = RetinaNet(body, 80, **sides, detections_per_img=300, _skip_resize=True).to(DEVICE)
    if DEVICE.type == "cuda" or how == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    if how == "compile":
        model.backbone, model.head = torch.compile(model.backbone), torch.compile(model.head)
    return model


def stepping(mode: str, images: list, targets: list, model: RetinaNet, precision) -> Callable:
    """A function that does the work once; on a GPU it returns before the work is done."""
    if mode == "infer":
        model.eval()

        @torch.no_grad()
        def predict() -> list:
            with precision():
                return model(images)

        return predict
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        with precision():
            total = sum(model(images, targets).values())
        total.backward()
        optimizer.step()

    return step


def on_device(height: int, width: int, batch: int) -> tuple[list, list]:
    """Images and targets as torchvision's detectors take them."""
    images, boxes, labels = map(torch.from_numpy, inputs.images(height, width, batch))
    images = list((images.permute(0, 3, 1, 2).float() / 255).contiguous().to(DEVICE))
    targets = [
        {"boxes": b.to(DEVICE), "labels": one.long().to(DEVICE)}
        for b, one in zip(boxes, labels, strict=True)
    ]
    return images, targets


def time_steps(step: Callable, count: int) -> dict[str, float]:
    """CPU and wall time of a step; waits for the device after the last one."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        step()
    wait()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"cpu_s": cpu / count, "wall_s": wall / count}


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def device_memory() -> dict[str, float]:
    """Peak memory of tensors on a GPU."""
    return {"memory_mb": torch.cuda.max_memory_allocated() / 1e6} if DEVICE.type == "cuda" else {}


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    mode, *case, dtype, backbone, steps, how = sys.argv[1:]
    height, width, batch = map(int, case)
    precision = contextlib.nullcontext
    if dtype == "bfloat16":
        precision = functools.partial(torch.autocast, DEVICE.type, torch.bfloat16)
    model = build(height, width, backbone, how)
    step = stepping(mode, *on_device(height, width, batch), model, precision)
    for _ in range(3):  # compiles; cuDNN selects its algorithms
        step()
    wait()
    name = f"torchvision {torchvision.__version__}, torch {torch.__version__}, {how}"
    serve(lambda: time_steps(step, int(steps)) | {"name": name} | device_memory())
