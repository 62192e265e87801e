"""Augmentations of one's own, and checks of what they return."""

from collections.abc import Callable

import numpy as np

from retinanet_jax.data.pipeline.augmentation_config import AUGMENTATIONS
from retinanet_jax.data.pipeline.batch import OBJECT_FIELDS, Example

_FIRST_PLACE = 6  # behind the key of an example, see host_augmentation.py


def with_own(
    read: Callable[[int], Example], key: tuple[int, ...], names: tuple[str, ...]
) -> Callable[[int], Example]:
    """`read`, followed by the augmentations of these names.

    Raises:
      ValueError: an augmentation does not return an Example of the same size and kind.
    """

    def read_and_change(number: int) -> Example:
        example = read(number)
        for place, name in enumerate(names):
            generator = np.random.default_rng((*key, _FIRST_PLACE + place, number))
            changed = AUGMENTATIONS[name](example, generator)
            if problem := _find_problem(example, changed):
                raise ValueError(f"augmentation.own: {name!r} returned {problem}")
            example = changed
        return example

    return read_and_change if names else read


def _find_problem(before: Example, now: object) -> str:
    """What is wrong with the result of an augmentation, and the fix; '' if nothing is."""
    if not isinstance(now, Example):
        return f"{type(now).__name__}; return the example, changed by example._replace(...)"
    image = now.image
    if image.shape != before.image.shape:
        # The canvas has been chosen by the size already.
        return f"an image of {image.shape} for one of {before.image.shape}; return the same size"
    if image.dtype != before.image.dtype:
        return f"an image of {image.dtype}; return {before.image.dtype} from 0 to 255"
    counts = {field: len(getattr(now, field)) for field in OBJECT_FIELDS}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} {field}" for field, count in counts.items())
        return f"{found}; return one of each per object"
    return "" if now.boxes is before.boxes else _find_lost_box(now.boxes, image.shape)


def _find_lost_box(boxes: np.ndarray, shape: tuple[int, ...]) -> str:
    """The first box that has no part in the image. One that is cut by its border is cut later."""
    size = shape[1], shape[0]
    low, high = boxes[:, :2], boxes[:, 2:]
    visible = (np.minimum(high, size) > np.maximum(low, 0)).all(axis=1)  # False for NaN
    if visible.all():
        return ""
    lost = boxes[~visible][0].tolist()
    fix = "return x1, y1, x2, y2 in pixels, and leave out objects outside, in all four fields"
    return f"the box {lost} for an image of width {size[0]} and height {size[1]}; {fix}"
