"""Checks examples of a user's function or of a dataset of the `datasets` library."""

import numpy as np

from retinanet_jax.data.annotations.check_boxes import OUTSIDE_TOLERANCE
from retinanet_jax.data.example_sources import Annotated
from retinanet_jax.data.pipeline.batch import Example

Problem = tuple[str, str]  # what is wrong, and how to fix it


def example_problem(example: Example, num_classes: int | None) -> Problem | None:
    """Returns what is wrong with an example; None if it is valid.

    Args:
      example: example with boxes in pixels of its image.
      num_classes: labels must be below it; with None, they are not checked.
    """
    image = np.asarray(example.image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        return f"image is {_kind(image)}", "pass RGB as uint8 of shape (height, width, 3)"
    return objects_problem(example, image.shape[:2], num_classes)


def objects_problem(
    objects: Example | Annotated, size: tuple[int, int], num_classes: int | None
) -> Problem | None:
    """Returns what is wrong with the objects of an image; None if they are valid.

    Args:
      objects: `boxes`, `labels`, `crowd` and `areas` are read.
      num_classes: as for `example_problem`.
    """
    boxes, labels = np.asarray(objects.boxes), np.asarray(objects.labels)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.issubdtype(boxes.dtype, np.floating):
        return f"boxes are {_kind(boxes)}", "pass float32 of shape (m, 4): x1, y1, x2, y2 in pixels"
    shape = boxes.shape[:1]
    for field, kind, wanted in (
        ("labels", np.integer, "integers"),
        ("crowd", np.bool_, "bool"),
        ("areas", np.floating, "float"),
    ):
        value = np.asarray(getattr(objects, field))
        if value.shape != shape or not np.issubdtype(value.dtype, kind):
            return f"{field} are {_kind(value)}", f"pass {wanted} of shape {shape}, one per box"
    if num_classes is not None and not ((labels >= 0) & (labels < num_classes)).all():
        wrong = int(labels[(labels < 0) | (labels >= num_classes)][0])
        return f"a label is {wrong}", f"use labels from 0 to {num_classes - 1}"
    return _box_problem(boxes, width=size[1], height=size[0])


def _box_problem(boxes: np.ndarray, width: int, height: int) -> Problem | None:
    flat = ~((boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(boxes).all(axis=1))
    if flat.any():
        fix = "pass finite corners, x1 < x2 and y1 < y2, not x, y, width, height"
        return f"box {int(np.flatnonzero(flat)[0])} is {boxes[flat][0].tolist()}", fix
    limits = np.array([width, height, width, height]) + OUTSIDE_TOLERANCE
    outside = (boxes < -OUTSIDE_TOLERANCE).any(axis=1) | (boxes > limits).any(axis=1)
    if outside.any():
        what = (
            f"box {int(np.flatnonzero(outside)[0])}, {boxes[outside][0].tolist()}, extends beyond"
        )
        return f"{what} its image of {width} x {height}", "clip it to the image, in pixels"
    return None


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
