"""Random augmentation of training examples: settings, random draws, composition.

An augmented example is a pure function of its key (seed, epoch, index), never of the batch in which
it lands. Each number has a fixed place among the draws of a key: enabling one augmentation leaves
the others unchanged. All geometry except the flip happens here, in uint8; flip and colours are
drawn here and applied on the device (training/device_augmentation.py).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from retinanet_jax.data.pipeline import copy_paste, mixup, mosaic, transforms
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.pipeline.canvas import PipelineConfig, jitter_bound
from retinanet_jax.data.pipeline.color import color_matrix

Range = tuple[float | int, float | int]

# Behind the key of an example; the other images of a mosaic have 1, 2 and 3.
_MIXUP_PLACE, _COPY_PASTE_PLACE, _OWN_PLACE = 4, 5, 6

AUGMENTATIONS: dict[str, Callable[[Example, np.random.Generator], Example]] = {}
"""The values of `augmentation.own`. A function changes image, boxes and labels of an example as it
is stored; the image keeps its size. Its random numbers come from the generator alone."""


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation of training images. The default is the paper's: flips alone (section 4).

    In this order: a mosaic joins four images, or not; of each image the crop takes a window,
    which is resized to one of `scales`, times the scale jitter, and cut where it is larger than
    there is room: the canvas, or its quadrant of the mosaic. Mixup adds another image, or not;
    copy-paste adds objects of another image, or not. Then the whole is mirrored, or not, and its
    colours are changed. In a mosaic an image has the size that it would have alone, so that a scale
    jitter that begins below 1, such as (0.5, 1.5), shows more of each.

    Attributes:
      own: names in AUGMENTATIONS, applied in this order to each image as it is stored, before all
        else. CONTRIBUTING.md shows how to add one.
      flip: whether half of the images are mirrored, left and right.
      scales: short sides in pixels of which one is drawn, in the place of pipeline.min_side; ():
        always that. detectron2's models: 640 to 800 in steps of 32. The long side is at most
        pipeline.max_side; canvases are as large as the largest scale needs.
      scale_jitter: lowest and highest factor on that size, drawn uniformly; above 1 it crops a
        random window. Large scale jitter is (0.1, 2.0) on a square canvas (Ghiasi et al.,
        arXiv 2012.07177, section 3; min_side = max_side = 1024).
      crop: lowest and highest share of the height, and apart from it of the width, that a random
        window has (detectron2's RandomCrop of type relative_range); (1, 1): the whole image.
      min_visible_share: a box is dropped where cropping left less than this share of its area in
        sight: the rest seldom shows what it is. 0 keeps every box that is in sight.
      brightness, contrast, saturation: the factor is drawn from 1 - value to 1 + value, value in
        [0, 1]; 0 is off. See data/pipeline/color.py, also for the source and for the next.
      hue: the turn is drawn from -value to value, in whole turns, value in [0, 0.5]; 0 is off.
      mosaic: probability that an image becomes one of four, the other three drawn uniformly from
        the dataset (YOLOv4, arXiv 2004.10934); image id and canvas are those of the first. It
        has more boxes, see pipeline.max_boxes, and costs the reading of four images.
      mixup: probability that an image becomes the mean of itself and another one, drawn uniformly
        from the dataset, with the boxes of both (YOLOX, arXiv 2107.08430). Costs the reading of
        another image.
      copy_paste: probability that an image gets a random half of the objects of another one, drawn
        uniformly from the dataset, each as its box (after Ghiasi et al., arXiv 2012.07177, who
        have masks). Costs the reading of another image.
      close_mosaic: number of epochs at the end of the run without mosaic, mixup and copy-paste,
        whose images are unlike those of evaluation (YOLOX, arXiv 2107.08430: 15 of 300).
    """

    own: tuple[str, ...] = ()
    flip: bool = True
    scales: tuple[int, ...] = ()
    scale_jitter: Range = (1.0, 1.0)
    crop: Range = (1.0, 1.0)
    min_visible_share: float = 0.25
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    close_mosaic: float = 0.0

    def __post_init__(self):
        for name in self.own:
            known = f"one of {', '.join(AUGMENTATIONS) or 'none, as none is added'}"
            _require(name in AUGMENTATIONS, "own", name, known)
        shares = ("min_visible_share", "brightness", "contrast", "saturation")
        shares += ("mosaic", "mixup", "copy_paste")
        for name, limit in [(name, 1) for name in shares] + [("hue", 0.5)]:
            _require(0 <= getattr(self, name) <= limit, name, getattr(self, name), f"0 to {limit}")
        for name, limit in (("scale_jitter", np.inf), ("crop", 1)):
            low, high = getattr(self, name)
            wanted = f"(low, high), 0 < low <= high{' <= 1' if limit == 1 else ''}"
            _require(0 < low <= high <= limit, name, getattr(self, name), wanted)
        _require(min(self.scales, default=1) >= 1, "scales", self.scales, "short sides in pixels")
        _require(self.close_mosaic >= 0, "close_mosaic", self.close_mosaic, "0 epochs or more")

    def changes_colors(self) -> bool:
        """Whether any of the four colour fields is on."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    def of_single_images(self) -> "AugmentationConfig":
        """Without mosaic, mixup and copy-paste; all else is drawn as with them."""
        return dataclasses.replace(self, mosaic=0.0, mixup=0.0, copy_paste=0.0)


def _require(holds: bool, field: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"augmentation.{field}: {value} is not {wanted}")


def with_largest_scale(settings: PipelineConfig, config: AugmentationConfig) -> PipelineConfig:
    """Settings for training: canvases hold images of the largest of `scales`.

    Raises:
      ValueError: a scale is larger than the limit of the long side.
    """
    min_side = max(config.scales, default=settings.min_side)
    wanted = f"at most pipeline.max_side, {settings.max_side}"
    _require(min_side <= settings.max_side, "scales", config.scales, wanted)
    return dataclasses.replace(settings, min_side=min_side)


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
    """The numbers that belong to a key, e.g. (seed, epoch, index), whatever was drawn before."""
    return Draws(*np.random.default_rng(key).random(len(Draws._fields)).tolist())


def augment(
    read: Callable[[int], Example],
    index: int,
    count: int,
    key: tuple[int, ...],
    settings: PipelineConfig,
    config: AugmentationConfig,
) -> Example:
    """Example `index`, augmented; the flip and the colours are noted in it for the device.

    Args:
      read: gives example 0 .. count - 1 as it is stored.
      count: examples in the dataset.
      key: of the random numbers, at least four of them (numpy takes shorter keys that differ in
        zeros at the end for the same).
      settings: from `with_largest_scale`.
    """
    read = _with_own(read, key, config.own)
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


def _with_own(
    read: Callable[[int], Example], key: tuple[int, ...], names: tuple[str, ...]
) -> Callable[[int], Example]:
    """`read`, followed by the augmentations of these names.

    Raises:
      ValueError: an augmentation changes the size, by which the canvas has been chosen already.
    """

    def read_and_change(number: int) -> Example:
        example = read(number)
        size = example.image.shape
        for place, name in enumerate(names):
            generator = np.random.default_rng((*key, _OWN_PLACE + place, number))
            example = AUGMENTATIONS[name](example, generator)
            if example.image.shape != size:
                raise ValueError(
                    f"augmentation.own: {name!r} makes an image of {example.image.shape} of one of "
                    f"{size}; return the same size"
                )
        return example

    return read_and_change if names else read


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
    """What is seen of an image of `size` (height, width): crop, scale, jitter and what they cut.

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
    """The view of an example; for boxes see transforms.crop."""
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
