"""Contestant of infer.py and train.py: torchvision's RetinaNet, v1; nothing of this package."""

import contextlib
import os
import sys
from collections.abc import Callable

import torch
import torchvision
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks import inputs
from benchmarks.contestants import serve, time_calls

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(size: int, backbone: str) -> RetinaNet:
    """Frozen norms, stem and res2, which is what the builder makes of pretrained weights."""
    body = resnet_fpn_backbone(
        backbone_name=backbone,
        weights=None,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return RetinaNet(body, 80, min_size=size, max_size=size, detections_per_img=300).to(DEVICE)


def stepping(mode: str, size: int, batch: int, dtype: str, backbone: str) -> Callable[[], object]:
    """A function without arguments that does the work once and waits for it."""
    images, boxes, labels = (torch.from_numpy(x) for x in inputs.pictures(size, batch))
    images = list((images.permute(0, 3, 1, 2).float() / 255).contiguous().to(DEVICE))
    targets = [
        {"boxes": b.to(DEVICE), "labels": one.long().to(DEVICE)}
        for b, one in zip(boxes, labels, strict=True)
    ]
    model = build(size, backbone)
    precision = contextlib.nullcontext
    if dtype == "bfloat16":
        precision = lambda: torch.autocast(DEVICE.type, torch.bfloat16)  # noqa: E731
    if mode == "infer":
        model.eval()

        @torch.no_grad()
        def predict() -> list:
            with precision():
                return [found["boxes"].cpu() for found in model(images)]

        return predict
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    model.train()

    def step() -> float:
        optimizer.zero_grad()
        with precision():
            total = sum(model(images, targets).values())
        total.backward()
        optimizer.step()
        return total.item()

    return step


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    mode, size, batch, dtype, backbone = sys.argv[1:]
    step = stepping(mode, int(size), int(batch), dtype, backbone)
    name = f"torchvision {torchvision.__version__}, torch {torch.__version__}"
    serve(lambda: time_calls(step) | {"name": name})
