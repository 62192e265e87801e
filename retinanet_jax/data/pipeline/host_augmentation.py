"""Random augmentation of training examples: random draws and composition.

An augmented example is a pure function of its key (seed, epoch, index), never of the batch in which
it lands. Each number has a fixed place among the draws of a key: enabling one augmentation leaves
the others unchanged. All geometry except the flip happens here, in uint8; flip and colours are
drawn here and applied on the device (training/device_augmentation.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from retinanet_jax.data.pipeline import copy_paste, mixup, mosaic, transforms
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig, Range
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.pipeline.canvas import PipelineConfig, jitter_bound
from retinanet_jax.data.pipeline.color import color_matrix
from retinanet_jax.data.pipeline.own_augmentation import with_own

# Behind the key of an example; the other images of a mosaic have 1, 2 and 3, and own augmentation
# has 6 and above.
_MIXUP_PLACE, _COPY_PASTE_PLACE = 4, 5


class Draws(NamedTuple):
    """The random numbers of one example, each uniform in [0, 1). New ones go to the end."""

    flip: float
    jitter: float
    top: float
    left: float
    scale: float
    crop_height: float
    crop_width: float
    crop_top: float
    crop_left: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    mosaic: float
    center_down: float
    center_right: float
    other_1: float
    other_2: float
    other_3: float
    mixup: float
    mixup_other: float
    copy_paste: float
    copy_paste_other: float


def draw(key: tuple[int, ...]) -> Draws:
    """Returns the numbers of a key such as (seed, epoch, index), independent of earlier draws."""
    return Draws(*np.random.default_rng(key).random(len(Draws._fields)).tolist())


def augment(
    read: Callable[[int], Example],
    index: int,
    count: int,
    key: tuple[int, ...],
    settings: PipelineConfig,
    config: AugmentationConfig,
) -> Example:
    """Returns example `index`, augmented; flip and colours are noted for the device.

    Args:
      read: returns example 0 to count - 1 as it is stored.
      count: number of examples in the dataset.
      key: key of the random numbers, at least four integers (numpy treats shorter keys that differ
        only in trailing zeros as equal).
      settings: from `with_largest_scale`.
    """
    read = with_own(read, key, config.own)
    draws, example = draw(key), read(index)
    stored_size = example.image.shape[:2]
    if draws.mosaic < config.mosaic:
        others = [int(number * count) for number in (draws.other_1, draws.other_2, draws.other_3)]
        examples = [example, *map(read, others)]
        all_draws = [draws, *(draw((*key, place)) for place in (1, 2, 3))]
        example = _mosaic(examples, all_draws, settings, config)
    else:
        view = draw_view(example.image.shape[:2], draws, settings, config)
        example = show(example, view, config.min_visible_share)
    if draws.mixup < config.mixup:
        other = read(int(draws.mixup_other * count))
        example = _mixup(example, other, stored_size, key, settings, config)
    if draws.copy_paste < config.copy_paste:
        other = read(int(draws.copy_paste_other * count))
        example = _copy_paste(example, other, key, settings, config)
    return example._replace(
        flip=draws.flip < 0.5 if config.flip else None,
        color=_draw_color(example.image, draws, config) if config.changes_colors() else None,
    )


class View(NamedTuple):
    """A window of an image, in its pixels, and the (height, width) at which it is shown."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]


def draw_view(
    size: tuple[int, int],
    draws: Draws,
    settings: PipelineConfig,
    config: AugmentationConfig,
    room: tuple[int, int] | None = None,
) -> View:
    """Returns the view of an image of `size` (height, width): crop, scale, jitter and their cuts.

    A window of another shape than the image is made as large as the canvases allow that the
    image may meet, so that it is the scale jitter alone that cuts once more.

    Args:
      room: the largest size to be shown; None: what every canvas has that the image may meet.
    """
    bound = jitter_bound(size, settings)
    sides = config.scales or (settings.min_side,)
    min_side = sides[int(draws.scale * len(sides))]
    window = [
        max(1, round(side * _between(config.crop, number)))
        for side, number in zip(size, (draws.crop_height, draws.crop_width), strict=True)
    ]
    crop_top, crop_left = _place((draws.crop_top, draws.crop_left), size, window)
    fitted = transforms.fitted_size(tuple(window), min_side, settings.max_side)
    fitting = min(1.0, bound[0] / fitted[0], bound[1] / fitted[1])
    factor = fitting * _between(config.scale_jitter, draws.jitter)
    target = transforms.fitted_size(tuple(window), min_side, settings.max_side, factor)
    shown = [min(t, r) for t, r in zip(target, room or bound, strict=True)]
    # In whole pixels of the stored image, which is cut before it is resized: several times
    # cheaper at large scales.
    height, width = (
        max(1, round(w * s / t)) for w, s, t in zip(window, shown, target, strict=True)
    )
    top, left = _place((draws.top, draws.left), window, (height, width))
    return View(crop_top + top, crop_left + left, height, width, (shown[0], shown[1]))


def _between(limits: Range, number: float) -> float:
    low, high = limits
    return low + (high - low) * number


def _place(numbers, size, window) -> list[int]:
    """Random upper left corner of a window inside an image."""
    return [int(n * (s - w + 1)) for n, s, w in zip(numbers, size, window, strict=True)]


def show(example: Example, view: View, min_visible_share: float) -> Example:
    """Returns the view of an example; for boxes see transforms.crop."""
    window = (view.height, view.width)
    if window != example.image.shape[:2]:
        example = transforms.crop(example, view.top, view.left, window, min_visible_share)
    return transforms.resize(example, view.size)


def _mixup(
    example: Example,
    other: Example,
    stored_size: tuple[int, int],
    key: tuple[int, ...],
    settings: PipelineConfig,
    config: AugmentationConfig,
) -> Example:
    """The mean of the example and another image, which has its own draws.

    The other one is cut to what every canvas has that an image of `stored_size` may meet.
    """
    room = jitter_bound(stored_size, settings)
    view = draw_view(other.image.shape[:2], draw((*key, _MIXUP_PLACE)), settings, config, room)
    return mixup.mix(example, show(other, view, config.min_visible_share))


def _copy_paste(
    example: Example,
    other: Example,
    key: tuple[int, ...],
    settings: PipelineConfig,
    config: AugmentationConfig,
) -> Example:
    """Objects of another image, which has its own draws, in the example."""
    key = (*key, _COPY_PASTE_PLACE)
    view = draw_view(other.image.shape[:2], draw(key), settings, config)
    shown = show(other, view, config.min_visible_share)
    rng = np.random.default_rng((*key, 1))
    return copy_paste.paste(example, shown, rng, config.min_visible_share)


def _mosaic(
    examples: list[Example],
    all_draws: list[Draws],
    settings: PipelineConfig,
    config: AugmentationConfig,
) -> Example:
    """Four examples in the canvas of the first, each with its own draws."""
    first = all_draws[0]
    canvas = jitter_bound(examples[0].image.shape[:2], settings)
    center = mosaic.center_at(canvas, first.center_down, first.center_right)
    parts = []
    rooms = mosaic.quadrants(canvas, center)
    for example, draws, room in zip(examples, all_draws, rooms, strict=True):
        view = draw_view(example.image.shape[:2], draws, settings, config, room)
        parts.append(show(example, view, config.min_visible_share))
    return mosaic.join(parts, canvas, center)


def _draw_color(image: np.ndarray, draws: Draws, config: AugmentationConfig) -> np.ndarray:
    # Of every eighth row: as good, and nearly for nothing.
    return color_matrix(
        np.array(cv2.mean(image[::8])[:3]),
        brightness=1 + config.brightness * (2 * draws.brightness - 1),
        contrast=1 + config.contrast * (2 * draws.contrast - 1),
        saturation=1 + config.saturation * (2 * draws.saturation - 1),
        hue=config.hue * (2 * draws.hue - 1),
    )
