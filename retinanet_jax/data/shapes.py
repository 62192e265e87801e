"""A dataset that needs no files: colored shapes on textured ground, drawn on the fly.

Example i is a pure function of (seed, i). Images show 5 classes over three octaves of size,
slightly rotated, each with its own family of colors, on muted backgrounds. Most of each shape is
visible; one image in twenty is empty. `Difficulty` makes it harder.
"""

import dataclasses

import cv2
import numpy as np

from retinanet_jax.data.example_sources import Annotated
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.records import Categories
from retinanet_jax.data.shapes_background import textured_ground
from retinanet_jax.data.shapes_drawing import (
    CLASSES,
    SIZE_RANGE,
    Shape,
    outlines_of,
    paint,
    put_anywhere,
    random_distractor,
    rasterize,
)

EMPTY_SHARE = 0.05  # of the images
MIN_VISIBLE = 0.7  # share of a shape that the shapes drawn later must leave in sight
MAX_BOX_IOU = 0.35  # between two boxes: well below the thresholds of matching and NMS
PLACING_TRIES = 8
UPRIGHT = -np.pi / 2  # the angle at which stars and triangles stand on their feet
MAX_TILT = np.pi / 12  # to either side: a small network learns upright shapes in minutes


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """What makes the dataset harder; the defaults are the easy one.

    Attributes:
      max_objects: maximum number of shapes per image, 1 to 100.
      size_range: minimum and maximum of the longest side of a shape, as a fraction of the shorter
        side of the image.
      imbalance: how many times as often as the last class the first class is drawn; the frequency
        falls geometrically in between. 1: all classes are equally frequent.
      distractors: number of things per image that have the classes' colors but are not objects
        (bars, crosses, chevrons, half discs), drawn beneath the shapes.

    Raises:
      ValueError: a value is impossible; the message names the field and what to write.
    """

    max_objects: int = 8
    size_range: tuple[float, float] = SIZE_RANGE
    imbalance: float | int = 1.0
    distractors: int = 0

    def __post_init__(self):
        low, high = self.size_range
        for name, holds, wanted in (
            ("max_objects", 1 <= self.max_objects <= 100, "from 1 to 100"),
            ("size_range", 0 < low <= high < 1, "(low, high) with 0 < low <= high < 1"),
            ("imbalance", 1 <= self.imbalance < np.inf, "at least 1"),
            ("distractors", self.distractors >= 0, "at least 0"),
        ):
            if not holds:
                raise ValueError(f"data.shapes.{name}: {getattr(self, name)} must be {wanted}")


EASY = Difficulty()


def check_sizes(image_size: tuple[int, int], difficulty: Difficulty) -> None:
    """Raises ValueError where images of (height, width) pixels or their shapes are too small."""
    if min(image_size) < 32:
        raise ValueError(
            f"data.shapes.image_size: {image_size} must have sides of at least 32 pixels"
        )
    if min(image_size) * difficulty.size_range[0] < 3:
        raise ValueError(
            f"data.shapes.size_range: {difficulty.size_range} makes shapes smaller than 3 pixels"
        )


class ShapesSource:
    """Random access to `num_images` drawn images: `source[i]` is an Example.

    Args:
      num_images: number of images.
      image_size: (height, width) of all images in pixels, both at least 32.
      seed: defines the dataset; use different seeds for training and validation.
      difficulty: number, sizes and classes of the shapes, and other things in the images.

    Boxes are the tight boxes of the whole shapes, also where a later shape covers a part, exact to
    1 / SUPERSAMPLING of a pixel; shapes lie wholly inside the image. The image id is i.
    """

    def __init__(
        self,
        *,
        num_images: int,
        image_size: tuple[int, int],
        seed: int,
        difficulty: Difficulty = EASY,
    ):
        if num_images < 1:
            raise ValueError(f"shapes.num_images: {num_images} must be at least 1")
        check_sizes(image_size, difficulty)
        self.categories = Categories(names=CLASSES, ids=tuple(range(1, len(CLASSES) + 1)))
        self._num_images = num_images
        self._image_size = image_size
        self._seed = seed
        self._difficulty = difficulty

    def __len__(self) -> int:
        return self._num_images

    def __getitem__(self, index: int) -> Example:
        image, shapes = self._draw(index)
        return Example(image, *_objects(shapes), image_id=int(index))

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) of image `index` in pixels."""
        return self._image_size

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of image `index`, without drawing it; areas are the shapes'."""
        return Annotated(*_objects(self._place(index)[2]), self._image_size)

    def image_id(self, index: int) -> int:
        return int(index)

    def ground_truth(self) -> dict:
        """Returns all annotations as COCO's instances JSON; `area` is the area of the shape.

        Places the shapes of every image once, about a millisecond each, and keeps none.
        """
        images, annotations = [], []
        height, width = self._image_size
        for index in range(self._num_images):
            images.append({"id": index, "height": height, "width": width})
            for shape in self._place(index)[2]:
                annotations.append(self._annotation(shape, index, len(annotations) + 1))
        categories = [
            {"id": id_, "name": name}
            for name, id_ in zip(self.categories.names, self.categories.ids, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _annotation(self, shape: Shape, image_id: int, annotation_id: int) -> dict:
        x1, y1, x2, y2 = shape.box
        return {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": self.categories.ids[shape.label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": shape.area,
            "iscrowd": 0,
        }

    def _draw(self, index: int) -> tuple[np.ndarray, list[Shape]]:
        rng, image, shapes = self._place(index)
        # A stream of their own: distractors leave the objects as they are.
        others = np.random.default_rng([self._seed, int(index), 1])
        for _ in range(self._difficulty.distractors):
            paint(others, image, random_distractor(others, self._image_size))
        for shape in shapes:
            paint(rng, image, shape)
        return cv2.merge(list((image + np.float32(0.5)).astype(np.uint8))), shapes

    def _place(self, index: int) -> tuple[np.random.Generator, np.ndarray, list[Shape]]:
        """The generator for the paint; the background, channels first; the shapes, not painted.

        Chance is drawn in this order: ground, places, paint. Objects need no paint.
        """
        if not 0 <= index < self._num_images:
            raise IndexError(f"shapes: no image {index}, there are {self._num_images}")
        rng = np.random.default_rng([self._seed, int(index)])
        # Channels first while drawing: numpy is several times faster along the long axes.
        image = textured_ground(rng, self._image_size)
        return rng, image, _place_shapes(rng, self._image_size, self._difficulty)


def _objects(shapes: list[Shape]) -> tuple[np.ndarray, ...]:
    """Boxes [m 4], labels, crowd marks and areas [m]."""
    boxes = np.array([shape.box for shape in shapes], np.float32).reshape(-1, 4)
    labels = np.array([shape.label for shape in shapes], np.int32)
    areas = np.array([shape.area for shape in shapes], np.float64)
    return boxes, labels, np.zeros(len(shapes), bool), areas


def _place_shapes(
    rng: np.random.Generator, size: tuple[int, int], difficulty: Difficulty
) -> list[Shape]:
    """Shapes in the order in which they are painted; one that finds no room is left out."""
    if rng.random() < EMPTY_SHARE:
        return []
    shapes: list[Shape] = []
    owner = np.full(size, -1, np.int8)  # the shape that is in sight at a pixel
    visible = np.zeros(difficulty.max_objects)  # its pixels in sight
    # The large first: small ones may lie upon them, never under them.
    count = int(rng.integers(1, difficulty.max_objects + 1))
    sides = np.sort(_random_sides(rng, count, min(size), difficulty.size_range))[::-1]
    for side in sides:
        for _ in range(PLACING_TRIES):
            label, outlines = _random_outlines(rng, size, side, difficulty.imbalance)
            if _near_duplicate(outlines[0], shapes):
                continue
            shape = rasterize(outlines, size, label)
            if _claim(shape, shapes, owner, visible):
                shapes.append(shape)
                break
    return shapes


def _random_sides(
    rng: np.random.Generator, count: int, shorter_side: int, size_range: tuple[float, float]
) -> np.ndarray:
    low, high = np.log(size_range)
    return np.exp(rng.uniform(low, high, count)) * shorter_side


def _claim(shape: Shape, others: list[Shape], owner: np.ndarray, visible: np.ndarray) -> bool:
    """Enters the shape into `owner` and `visible`, unless it would hide too much of another."""
    height, width = shape.coverage.shape
    region = owner[shape.top : shape.top + height, shape.left : shape.left + width]
    solid = shape.coverage >= 0.5
    taken = np.bincount(region[solid] + 1, minlength=len(visible) + 1)[1:]
    for number, other in enumerate(others):
        if visible[number] - taken[number] < MIN_VISIBLE * other.area:
            return False
    visible -= taken
    visible[len(others)] = shape.area
    region[solid] = len(others)
    return True


def _near_duplicate(outline: np.ndarray, shapes: list[Shape]) -> bool:
    box = (*outline.min(0).tolist(), *outline.max(0).tolist())
    return any(_iou(box, shape.box) > MAX_BOX_IOU for shape in shapes)


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    # Two single boxes as plain floats: a thousandth of a dispatch to the device.
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def _random_outlines(
    rng: np.random.Generator, size: tuple[int, int], side: float, imbalance: float | int
) -> tuple[int, list[np.ndarray]]:
    """A random label, and its outlines turned and placed at random, the longest side `side`."""
    label = _random_label(rng, imbalance)
    outlines = outlines_of(CLASSES[label], UPRIGHT + rng.uniform(-MAX_TILT, MAX_TILT))
    return label, put_anywhere(rng, outlines, size, side)


def _random_label(rng: np.random.Generator, imbalance: float | int) -> int:
    if imbalance == 1:
        return int(rng.integers(len(CLASSES)))
    shares = np.geomspace(imbalance, 1, len(CLASSES))
    return int(rng.choice(len(CLASSES), p=shares / shares.sum()))
