"""Fine-tunes torchvision's RetinaNet on a folder in COCO format: the peer of folder.py:small.

    python scripts/torchvision_finetune.py --train=FOLDER/train --val=FOLDER/val --weights=FILE

A ResNet-18 up to layer3, P3 to P6, and torchvision's own heads, anchors, matching, losses and
transform. Each folder has its images and _annotations.coco.json. FILE has ImageNet weights as one
array for each tensor (.npz), with batch norm folded into the convolutions. AdamW trains all layers
with one learning rate, a warm-up and a cosine. It needs PyTorch, torchvision and pycocotools, and
not this package.
"""

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), help="short and long side")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # After the flags: PyTorch may not be installed where they are only read.
    import torch
    from benchmarks.torchvision_training import Images, evaluate, make_model, train

    torch.manual_seed(given.seed)
    started = time.process_time()
    images, held_out = Images(given.train, True), Images(given.val, False)
    model = make_model(given.weights, len(images.labels), given.channels, *given.size)
    train(model, images, given)
    numbers = evaluate(model, held_out)
    result = {"AP": numbers[0], "AP50": numbers[1], "AP75": numbers[2]}
    print(json.dumps(result | {"cpu_seconds": time.process_time() - started, "seed": given.seed}))


if __name__ == "__main__":
    main()
