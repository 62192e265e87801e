"""All annotated objects of a split as flat arrays, as stored and as resized for the network."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from retinanet_jax.data.example_sources import Annotated, Source
from retinanet_jax.data.pipeline.canvas import PipelineConfig, canvas_for, fitted_sizes

# COCO's limits between small, medium and large objects, in square pixels of the stored image.
SIZE_EDGES = (32.0**2, 96.0**2)
SIZES = ("small", "medium", "large")


class ObjectTable(NamedTuple):
    """m objects on n images, which are a split or a part of it.

    numbers: index of each image in its source.
    sizes: (height, width) of the images in pixels.
    image: for each object, the row of its image in the two arrays above; not decreasing.
    boxes: xyxy in pixels of the stored image.
    labels: contiguous from 0.
    crowd: whether the box is a region of many objects.
    areas: as annotated, in square pixels of the stored image.
    total: number of images of the whole split.
    """

    numbers: Int[np.ndarray, " n"]
    sizes: Int[np.ndarray, "n 2"]
    image: Int[np.ndarray, " m"]
    boxes: Float[np.ndarray, "m 4"]
    labels: Int[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]
    areas: Float[np.ndarray, " m"]
    total: int

    def select(self, kept: np.ndarray) -> "ObjectTable":
        """Returns the same images with the objects of `kept`, indices or a mask."""
        fields = ("image", "boxes", "labels", "crowd", "areas")
        return self._replace(**{field: getattr(self, field)[kept] for field in fields})

    @property
    def size_classes(self) -> Int[np.ndarray, " m"]:
        """COCO's size of each object by its area: 0 small, 1 medium, 2 large.

        An area of exactly 32^2 or 96^2 belongs to the larger size, so that the integer areas of
        TFDS give the same sizes.
        """
        return np.digitize(self.areas, SIZE_EDGES)


class Fitted(NamedTuple):
    """Objects resized as for the network, without random augmentation.

    boxes: xyxy in pixels of the canvas.
    sizes: (height, width) of the n images after resizing.
    canvases: (height, width) of the smallest canvas that holds each of the n images.
    """

    boxes: Float[np.ndarray, "m 4"]
    sizes: Int[np.ndarray, "n 2"]
    canvases: Int[np.ndarray, "n 2"]


def read_objects(source: Source, max_images: int) -> ObjectTable:
    """Returns the objects of a source. No image is decoded.

    Args:
      max_images: maximum number of images; of a larger source, every k-th image is read.
    """
    step = max(1, -(-len(source) // max_images))
    numbers = range(0, len(source), step)
    read = [source.annotated(number) for number in numbers]
    counts = [len(annotated.boxes) for annotated in read]
    return ObjectTable(
        numbers=np.array(numbers, int),
        sizes=np.array([annotated.size for annotated in read], int).reshape(-1, 2),
        image=np.repeat(np.arange(len(read)), np.array(counts, int)),
        boxes=_joined(read, "boxes", np.float32).reshape(-1, 4),
        labels=_joined(read, "labels", np.int32),
        crowd=_joined(read, "crowd", bool),
        areas=_joined(read, "areas", np.float32),
        total=len(source),
    )


def box_sides(boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 2"]:
    """Returns (width, height) of boxes; 0 where corners are swapped."""
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0)


def _joined(read: list[Annotated], field: str, dtype: type) -> np.ndarray:
    parts = [getattr(annotated, field) for annotated in read]
    return np.concatenate(parts).astype(dtype) if parts else np.empty(0, dtype)


def fit_objects(objects: ObjectTable, settings: PipelineConfig) -> Fitted:
    """Resizes the boxes as the pipeline does in evaluation."""
    # Images have few distinct sizes: each is fitted once.
    distinct, place = np.unique(objects.sizes, axis=0, return_inverse=True)
    place = place.reshape(-1)
    sizes = fitted_sizes([tuple(size) for size in distinct.tolist()], settings)
    canvases = np.array([canvas_for(size[None], settings) for size in sizes], int).reshape(-1, 2)
    factors = np.tile((sizes / distinct)[:, ::-1], 2)[place]
    boxes = (objects.boxes * factors[objects.image]).astype(np.float32)
    return Fitted(boxes, sizes[place], canvases[place])
