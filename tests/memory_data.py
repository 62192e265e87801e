"""A dataset made of a few lists, for tests of what looks at data."""

import numpy as np

from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.example_sources import Annotated
from retinanet_jax.data.pipeline.batch import Example, box_areas
from retinanet_jax.data.records import Categories


class MemorySource:
    """Grey images of one size with the boxes [m 4], labels [m] and crowd marks [m] of lists."""

    def __init__(self, objects, size=(64, 64)):
        self._objects, self._size = list(objects), size

    def __len__(self):
        return len(self._objects)

    def __getitem__(self, index):
        image = np.full((*self._size, 3), 128, np.uint8)
        return Example(image, *self.annotated(index)[:4], image_id=self.image_id(index))

    def image_size(self, index):
        return self._size

    def image_id(self, index):
        return 100 + index

    def annotated(self, index):
        boxes, labels, crowd = self._objects[index]
        return Annotated(boxes, labels, crowd, box_areas(boxes), self._size)


def objects_of(boxes, labels=None, crowd=None):
    """Boxes, labels (all 0) and crowd marks (none) of one image as arrays."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes)) if labels is None else labels
    crowd = np.zeros(len(boxes)) if crowd is None else crowd
    return boxes, np.array(labels, np.int32), np.array(crowd, bool)


def random_objects(seed, sides, *, size=(64, 64), images=20, count=5, classes=1):
    """Images with boxes at random places whose (width, height) are drawn from a list."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(images):
        extent = np.array(sides, float)[rng.integers(len(sides), size=count)]
        extent *= rng.uniform(0.9, 1.1, (count, 1))
        corner = rng.uniform(0, 1, (count, 2)) * (np.array(size[::-1]) - extent)
        boxes = np.concatenate([corner, corner + extent], axis=1)
        found.append(objects_of(boxes, rng.integers(classes, size=count)))
    return found


def memory_dataset(objects, names=("thing",), name="memory", size=(64, 64), **fields):
    categories = Categories(tuple(names), tuple(range(1, len(names) + 1)))
    return Dataset(MemorySource(objects, size), categories, dict, name, **fields)
