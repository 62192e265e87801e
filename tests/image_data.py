"""A dataset of small random images that says what it holds, for tests of the pipeline."""

from types import SimpleNamespace

import numpy as np

from retinanet_jax.data.example_sources import Annotated
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig
from retinanet_jax.data.pipeline.batch import Example, box_areas
from retinanet_jax.data.pipeline.canvas import PipelineConfig

# A mosaic has the boxes of four images.
SMALL = PipelineConfig(min_side=24, max_side=40, pad_multiple=8, max_boxes=12, num_threads=2)
ALL_ON = AugmentationConfig(
    scales=(16, 24),
    scale_jitter=(0.6, 1.7),
    crop=(0.5, 1.0),
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    mosaic=0.3,
)
SIZES = [(48, 80), (80, 48), (48, 72), (64, 64), (30, 90), (24, 40), (100, 60)]


class Images:
    """Random images of various sizes; image i has i % 4 boxes and the id 100 + i."""

    def __init__(self, count: int, sizes=tuple(SIZES)):
        self._count, self._sizes = count, sizes

    def __len__(self) -> int:
        return self._count

    def image_size(self, index: int) -> tuple[int, int]:
        return self._sizes[index % len(self._sizes)]

    def image_id(self, index: int) -> int:
        return 100 + index

    def annotated(self, index: int) -> Annotated:
        example = self[index]
        return Annotated(*example[1:5], example.image.shape[:2])

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng(index)
        height, width = self.image_size(index)
        corners = np.sort(rng.uniform(0, 1, (index % 4, 2, 2)), axis=1) * (width, height)
        boxes = corners.reshape(-1, 4).astype(np.float32)
        labels = np.arange(len(boxes), dtype=np.int32)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        crowd = np.zeros(len(boxes), bool)
        return Example(image, boxes, labels, crowd, box_areas(boxes), 100 + index)


def dataset(source) -> SimpleNamespace:
    return SimpleNamespace(source=source, name="images")
