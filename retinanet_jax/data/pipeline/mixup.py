"""Mixup: the mean of two images, with the boxes of both (YOLOX, arXiv 2107.08430, section 2.1).

Both images have the weight one half, as in YOLOX: the boxes of both count equally in the loss, and
an object with a small weight would hardly be visible.
"""

import cv2
import numpy as np

from retinanet_jax.data.pipeline.batch import OBJECT_FIELDS, Example
from retinanet_jax.data.pipeline.mosaic import FILL


def mix(first: Example, second: Example) -> Example:
    """Returns the mean of two images, their upper left corners together; neither is resized.

    Where one image does not cover the other, it counts as grey. Image id and original size are
    those of the first.
    """
    height, width = np.maximum(first.image.shape[:2], second.image.shape[:2])
    layers = [np.full((height, width, 3), FILL, np.uint8) for _ in range(2)]
    for layer, example in zip(layers, (first, second), strict=True):
        rows, columns = example.image.shape[:2]
        layer[:rows, :columns] = example.image
    objects = {
        field: np.concatenate([getattr(first, field), getattr(second, field)])
        for field in OBJECT_FIELDS
    }
    return first._replace(image=cv2.addWeighted(layers[0], 0.5, layers[1], 0.5, 0), **objects)
