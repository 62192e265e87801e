"""The training of scripts/torchvision_finetune.py: torchvision's RetinaNet on a ResNet-18."""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torchvision
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

LEVELS = (3, 4, 5, 6)


class Images(torch.utils.data.Dataset):
    """The images of a folder, with their boxes in xyxy and labels from 0; half are mirrored."""

    def __init__(self, folder: Path, mirrored: bool):
        self.coco = COCO(folder / "_annotations.coco.json")
        self.folder, self.mirrored, self.ids = folder, mirrored, sorted(self.coco.imgs)
        self.labels = {category: i for i, category in enumerate(sorted(self.coco.cats))}

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        number = self.ids[index]
        path = self.folder / self.coco.imgs[number]["file_name"]
        image = torchvision.io.decode_image(str(path), mode="RGB") / 255
        objects = self.coco.imgToAnns[number]
        boxes = torch.tensor([entry["bbox"] for entry in objects]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([self.labels[entry["category_id"]] for entry in objects])
        if self.mirrored and torch.rand(()) < 0.5:
            image, width = image.flip(-1), image.shape[-1]
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return image, {"boxes": boxes[kept], "labels": labels[kept].long()}, number


def make_model(weights: Path, classes: int, channels: int, size: int, max_size: int):
    """torchvision's RetinaNet on a ResNet-18 up to layer3."""
    body = torchvision.models.resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    stored = np.load(weights)
    own = body.state_dict()
    with torch.no_grad():
        for name in stored.files:
            if name.startswith(("layer4", "fc")):
                continue
            target = name
            if name.endswith(".bias"):  # of the folded batch norm
                stem = name.removesuffix(".bias")
                norm = stem.replace("downsample.0", "downsample.1").replace("conv", "bn")
                target = f"{norm}.bias"
            own[target].copy_(torch.from_numpy(stored[name]))
    backbone = BackboneWithFPN(
        body,
        {"layer2": "0", "layer3": "1"},
        [128, 256],
        channels,
        LastLevelP6P7(channels, channels),
    )
    sizes = tuple(tuple(4 * 2**k * 2 ** (i / 3) for i in range(3)) for k in LEVELS)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(LEVELS))
    return torchvision.models.detection.RetinaNet(
        backbone, classes, min_size=size, max_size=max_size, anchor_generator=anchors
    )


def train(model, images: Images, given: argparse.Namespace) -> None:
    """The steps."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, given.learning_rate, weight_decay=1e-4)

    def rate(step):
        done = max(0, step - given.warmup) / max(1, given.steps - given.warmup)
        return min(1, (step + 1) / given.warmup) * (1 + math.cos(math.pi * done)) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    sampler = torch.utils.data.RandomSampler(images, num_samples=given.steps * given.batch)
    loader = torch.utils.data.DataLoader(
        images, given.batch, sampler=sampler, collate_fn=lambda batch: zip(*batch, strict=True)
    )
    model.train()
    for step, (pixels, targets, _) in enumerate(loader, 1):
        losses = model(list(pixels), list(targets))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(step, {name: round(float(loss), 4) for name, loss in losses.items()}, flush=True)


@torch.no_grad()
def evaluate(model, images: Images) -> list[float]:
    """COCO's twelve numbers."""
    model.eval()
    categories, results = sorted(images.coco.cats), []
    for image, _, number in images:
        found = {name: value.tolist() for name, value in model([image])[0].items()}
        for (x1, y1, x2, y2), label, score in zip(
            *(found[k] for k in ("boxes", "labels", "scores")), strict=True
        ):
            results.append(
                {
                    "image_id": number,
                    "category_id": categories[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    if not results:  # loadRes fails without any
        return [0.0] * 12
    scored = COCOeval(images.coco, images.coco.loadRes(results), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    return scored.stats.tolist()
