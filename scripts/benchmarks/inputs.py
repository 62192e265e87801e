"""Random inputs of the benchmarks, the same for all contestants; needs NumPy only."""

import math

import numpy as np

CANVAS = (800, 1344)
STRIDES = (8, 16, 32, 64, 128)
IGNORE, NEGATIVE = -2, -1


def loss_inputs(num_anchors: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of an untrained network, float32 [n k]; labels [n], 0.2% positive, 1% ignored."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((num_anchors, num_classes), np.float32)
    logits -= math.log(99)  # the prior of 0.01
    state = rng.random(num_anchors)
    labels = np.where(state < 0.012, IGNORE, NEGATIVE)
    labels[state < 0.002] = rng.integers(0, num_classes, np.sum(state < 0.002))
    return logits, labels.astype(np.int32)


def anchors_per_level(shrink: int) -> list[int]:
    """Nine anchors per cell, on the canvas with sides divided by `shrink`."""
    return [
        9 * math.prod(math.ceil(side / shrink / stride) for side in CANVAS) for stride in STRIDES
    ]


def heads_outputs(shrink: int, num_classes: int) -> dict[str, list[np.ndarray]]:
    """Logits, deltas and anchors per level of one image; 201,600 anchors if `shrink` is 1.

    Logits are normal about -6 with a deviation of 1: about 0.1% pass the score threshold of 0.05.
    """
    rng = np.random.default_rng(0)
    levels = {"logits": [], "deltas": [], "anchors": []}
    for stride, count in zip(STRIDES, anchors_per_level(shrink), strict=True):
        logits = rng.standard_normal((count, num_classes), np.float32)
        logits -= 6
        centers = rng.uniform(0, 1, (count, 2)) * CANVAS[::-1] / shrink
        halves = 2 * stride * rng.uniform(0.7, 2.2, (count, 2))
        levels["logits"].append(logits)
        levels["deltas"].append(0.2 * rng.standard_normal((count, 4), np.float32))
        boxes = np.concatenate([centers - halves, centers + halves], axis=1)
        levels["anchors"].append(boxes.astype(np.float32))
    return levels


def crowded_boxes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes xyxy [n 4], about ten around each of n / 10 objects, and scores [n]; float32."""
    rng = np.random.default_rng(0)
    objects = rng.uniform(0, 1, (max(count // 10, 1), 2)) * CANVAS[::-1]
    centers = objects[rng.integers(0, len(objects), count)] + rng.normal(0, 8, (count, 2))
    halves = rng.uniform(20, 60, (count, 2))
    boxes = np.concatenate([centers - halves, centers + halves], axis=1).astype(np.float32)
    return boxes, rng.permutation(count).astype(np.float32) / count


def images(height: int, width: int, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise, uint8 [b h w 3], with boxes xyxy [b 7 4] and labels [b 7] below 80."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.6, (batch, 7, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.05, 0.4, (batch, 7, 2))], axis=2)
    images = rng.integers(0, 256, (batch, height, width, 3), np.uint8)
    boxes *= np.tile([width, height], 2)
    return images, boxes.astype(np.float32), rng.integers(0, 80, (batch, 7), np.int32)
