"""Examples and batches: fixed shapes, zero-padded images, boxes padded with label -1."""

import logging
import math
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.runtime.wording import counted

PADDING_LABEL = -1
PADDING_IMAGE_ID = -1
IDENTITY_COLOR = np.eye(3, 4, dtype=np.float32)

_ALIGNMENT = 64  # bytes; what XLA asks of memory on the CPU that it is to use without copying

_log = logging.getLogger(__name__)


class Example(NamedTuple):
    """One image with its boxes, on the host.

    boxes: xyxy in absolute pixels of `image`.
    labels: contiguous from 0.
    crowd: True for boxes that are regions of many objects.
    areas: areas of the objects in square pixels of `image`, or of their boxes without outlines.
    original_size: (height, width) of the stored image; None: that of `image`.
    flip, color: augmentation that the device applies, see Batch; None: none.
    """

    image: UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"]
    boxes: Float[np.ndarray, "m 4"]
    labels: Int[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]
    areas: Float[np.ndarray, " m"]
    image_id: int
    original_size: tuple[int, int] | None = None
    flip: bool | None = None
    color: Float[np.ndarray, "3 4"] | None = None


def without_objects(image: UInt8[np.ndarray, "h w 3"], image_id: int = 0) -> Example:
    """Returns an image without annotations."""
    objects = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0)
    return Example(image, *objects, image_id=image_id)


OBJECT_FIELDS = ("boxes", "labels", "crowd", "areas")  # of an Example: one row per object


class Batch(NamedTuple):
    """The arrays sent to the device: b images in the top left corners of equal canvases of zeros.

    images: RGB, uint8; float32 up to 255 where resizing must not round (torchvision's).
    image_sizes: (height, width) of the image inside the canvas, in pixels.
    original_sizes: (height, width) of the image as it is stored, in pixels.
    gt_boxes: xyxy in pixels of the canvas; zeros where gt_labels is -1.
    valid: False for the rows that only fill up the last batch.
    flip: True where `augment_on_device` will mirror the image; None: nowhere.
    color: matrices [color, 1 offset] that it will map RGB by, on the scale 0..255; None: none.
    """

    images: UInt8[ArrayLike, "b h w 3"] | Float32[ArrayLike, "b h w 3"]
    image_sizes: Float[ArrayLike, "b 2"]
    original_sizes: Float[ArrayLike, "b 2"]
    gt_boxes: Float[ArrayLike, "b m 4"]
    gt_labels: Int[ArrayLike, "b m"]
    gt_crowd: Bool[ArrayLike, "b m"]
    valid: Bool[ArrayLike, " b"]
    flip: Bool[ArrayLike, " b"] | None = None
    color: Float[ArrayLike, "b 3 4"] | None = None


class HostBatch(NamedTuple):
    """A batch of numpy arrays with the ids of its images (-1 where `valid` is False).

    Do not write to it after it was sent to a device: on the CPU, the device may use its memory.
    """

    batch: Batch
    image_ids: np.ndarray


class DroppedBoxes:
    """Counts the boxes that did not fit into max_boxes, by image.

    Args:
      warn: whether to log the first time.
    """

    def __init__(self, warn: bool = True):
        self._warn = warn
        self._by_image: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, image_id: int, boxes: int, max_boxes: int) -> None:
        """Counts the boxes of an image over max_boxes; an image seen again counts once."""
        with self._lock:
            warn = self._warn and not self._by_image
            known = self._by_image.get(image_id, 0)
            self._by_image[image_id] = max(known, boxes - max_boxes)
        if warn:
            _log.warning(
                "image %d has %d boxes, but a batch holds %d: the largest are kept (logged once); "
                "raise max_boxes to keep all",
                image_id,
                boxes,
                max_boxes,
            )

    def counts(self) -> list[tuple[int, int]]:
        """Returns (image id, number of boxes left out) pairs."""
        with self._lock:
            return list(self._by_image.items())

    def merge(self, counts: Iterable[Sequence[int]]) -> None:
        """Adds the counts of another process."""
        with self._lock:
            for image_id, boxes in counts:
                self._by_image[image_id] = max(self._by_image.get(image_id, 0), boxes)

    def summary(self) -> str:
        """Returns how many boxes of how many images were left out, with a few ids; '' if none."""
        by_image = dict(self.counts())
        if not by_image:
            return ""
        few = ", ".join(map(str, list(by_image)[:5])) + (", ..." if len(by_image) > 5 else "")
        return (
            f"max_boxes left out {sum(by_image.values())} boxes, the smallest, of "
            f"{counted(len(by_image), 'image')}: id {few}; raise config.pipeline.max_boxes to keep "
            "all"
        )


def collate(
    examples: Sequence[Example],
    canvas: tuple[int, int],
    max_boxes: int,
    batch_size: int,
    *,
    dropped: DroppedBoxes | None = None,
    dtype: type = np.uint8,
) -> HostBatch:
    """Puts up to `batch_size` examples into one batch of fixed shape.

    Args:
      examples: at most `batch_size` examples; missing rows become padding with `valid` False.
      canvas: (height, width) of all images of the batch, in pixels.
      max_boxes: maximum number of boxes per image; the largest are kept, in their order.
      dropped: counts the boxes that did not fit; with None, each call warns.
      dtype: type of the batch's images, uint8 or float32.

    Raises:
      ValueError: an image is larger than the canvas, or there are more examples than rows.
    """
    if len(examples) > batch_size:
        raise ValueError(f"collate: {len(examples)} examples for a batch_size of {batch_size}")
    dropped = DroppedBoxes() if dropped is None else dropped
    host = padding_batch(
        canvas,
        max_boxes,
        batch_size,
        dtype=dtype,
        flips=any(example.flip is not None for example in examples),
        colors=any(example.color is not None for example in examples),
    )
    for row, example in enumerate(examples):
        fill_row(host, row, example, dropped)
    return host


def keep_largest(example: Example, max_boxes: int, dropped: DroppedBoxes) -> Example:
    """Keeps the `max_boxes` largest boxes by area, in their order, and counts the others."""
    count = len(example.boxes)
    if count <= max_boxes:
        return example
    dropped.add(example.image_id, count, max_boxes)
    largest = np.argsort(-box_areas(example.boxes), kind="stable")[:max_boxes]
    return select_boxes(example, np.sort(largest))


def select_boxes(example: Example, kept: np.ndarray) -> Example:
    """Returns the example with only the boxes that `kept` (indices or a mask) names."""
    return example._replace(**{field: getattr(example, field)[kept] for field in OBJECT_FIELDS})


def box_areas(boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, " m"]:
    """Returns areas in square pixels, on the host."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def padding_batch(
    canvas: tuple[int, int],
    max_boxes: int,
    batch_size: int,
    *,
    dtype: type = np.uint8,
    flips: bool = False,
    colors: bool = False,
) -> HostBatch:
    """Returns a batch of padding only, whose rows `fill_row` fills.

    `flips` and `colors` say whether the batch has these fields.

    This is not derived from the examples, since a process may get batches of padding only.
    """
    # Padding rows carry the canvas as their size, so that dividing by a size stays finite.
    sizes = np.tile(np.asarray(canvas, np.float32), (batch_size, 1))
    batch = Batch(
        images=_aligned_zeros((batch_size, *canvas, 3), dtype),
        image_sizes=sizes,
        original_sizes=sizes.copy(),
        gt_boxes=np.zeros((batch_size, max_boxes, 4), np.float32),
        gt_labels=np.full((batch_size, max_boxes), PADDING_LABEL, np.int32),
        gt_crowd=np.zeros((batch_size, max_boxes), bool),
        valid=np.zeros(batch_size, bool),
        flip=np.zeros(batch_size, bool) if flips else None,
        color=np.tile(IDENTITY_COLOR, (batch_size, 1, 1)) if colors else None,
    )
    return HostBatch(batch, np.full(batch_size, PADDING_IMAGE_ID, np.int64))


def _aligned_zeros(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Zeros at an address that XLA's CPU backend takes over as it is, where numpy's it copies."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def fill_row(host: HostBatch, row: int, example: Example, dropped: DroppedBoxes) -> None:
    """Writes an example into a row of padding; see collate."""
    batch, (height, width) = host.batch, example.image.shape[:2]
    canvas, max_boxes = batch.images.shape[1:3], batch.gt_labels.shape[1]
    if height > canvas[0] or width > canvas[1]:
        raise ValueError(
            f"image {example.image_id} is {height} x {width} (height x width), too large for "
            f"the canvas of {canvas[0]} x {canvas[1]}; resize it before collate"
        )
    example = keep_largest(example, max_boxes, dropped)
    count = len(example.boxes)
    batch.images[row, :height, :width] = example.image
    batch.image_sizes[row] = height, width
    batch.original_sizes[row] = example.original_size or (height, width)
    batch.gt_boxes[row, :count] = example.boxes
    batch.gt_labels[row, :count] = example.labels
    batch.gt_crowd[row, :count] = example.crowd
    batch.valid[row] = True
    if example.flip is not None:
        batch.flip[row] = example.flip
    if example.color is not None:
        batch.color[row] = example.color
    host.image_ids[row] = example.image_id
