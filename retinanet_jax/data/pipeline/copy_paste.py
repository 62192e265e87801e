"""Copy-paste: objects of another image at random places of this one, as their boxes.

Ghiasi et al. (arXiv 2012.07177) paste objects along their masks. Datasets of boxes have no masks:
the whole box is pasted, with its background.
"""

import numpy as np

from retinanet_jax.data.pipeline.batch import OBJECT_FIELDS, Example, select_boxes

SHARE = 0.5  # of the objects of the other image, chosen at random


def paste(
    example: Example, other: Example, rng: np.random.Generator, min_visible_share: float
) -> Example:
    """Returns the example with a random half of the objects of another image; no object is resized.

    Crowds, objects larger than the image, and objects that would cover one pasted before are left
    out. An object of the example is dropped if less than `min_visible_share` of it stays visible.
    Image id and original size are those of the example.
    """
    image, covered = example.image.copy(), np.zeros(example.image.shape[:2], bool)
    rows, boxes = [], []
    draws = rng.random((len(other.boxes), 3))
    for row, (chosen, down, right) in enumerate(draws):
        if chosen >= SHARE or other.crowd[row]:
            continue
        x1, y1 = np.floor(other.boxes[row, :2]).astype(int)
        x2, y2 = np.ceil(other.boxes[row, 2:]).astype(int)
        room = np.subtract(image.shape[:2], (y2 - y1, x2 - x1))
        if room.min() < 0:
            continue
        top, left = (np.array([down, right]) * (room + 1)).astype(int)
        place = np.s_[top : top + y2 - y1, left : left + x2 - x1]
        if covered[place].any():
            continue
        image[place], covered[place] = other.image[y1:y2, x1:x2], True
        rows.append(row)
        boxes.append(other.boxes[row] + np.float32([left - x1, top - y1] * 2))
    pasted = select_boxes(other, np.array(rows, int))
    pasted = pasted._replace(boxes=np.array(boxes, np.float32).reshape(-1, 4))
    seen = np.array([1 - _share(covered, box) for box in example.boxes])
    kept = select_boxes(example, (seen >= min_visible_share) | example.crowd)
    objects = {
        field: np.concatenate([getattr(kept, field), getattr(pasted, field)])
        for field in OBJECT_FIELDS
    }
    return example._replace(image=image, **objects)


def _share(covered: np.ndarray, box: np.ndarray) -> float:
    """The share of a box, in whole pixels, that is covered."""
    x1, y1 = np.floor(box[:2]).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int)
    return float(covered[y1:y2, x1:x2].mean()) if x2 > x1 and y2 > y1 else 0.0
