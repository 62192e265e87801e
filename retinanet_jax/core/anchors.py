"""Anchors: the reference boxes at every location of the feature pyramid.

RetinaNet paper (arXiv 1708.02002), section 4, "Anchors": on the levels P3 to P7, areas of 32^2 to
512^2, three aspect ratios and three sizes per octave. Public implementations differ in the order of
the anchors of a location, in rounding and in the centre; see `AnchorConfig`.

The functions return numpy arrays: anchors depend only on the image size and are constants of a
compiled program.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from retinanet_jax.core.field_checks import one_of

ORDERS = ("scale_major", "ratio_major")
ROUNDINGS = ("none", "torchvision", "detectron")
STRIDES = ("power_of_two", "grid")


@dataclasses.dataclass(frozen=True)
class AnchorConfig:
    """Shapes, order and positions of the anchors.

    Raises:
      ValueError: an invalid value; the message names the field and the fix.
    """

    min_level: int = 3
    """Lowest pyramid level; level l has a stride of 2**l pixels."""
    max_level: int = 7
    """Highest pyramid level, included. Paper: P3 to P7."""
    scales: tuple[float | int, ...] = (1.0, 2.0 ** (1 / 3), 2.0 ** (2 / 3))
    """Factors of the side: the "sizes per octave" of the paper's section 4."""
    ratios: tuple[float | int, ...] = (0.5, 1.0, 2.0)
    """Aspect ratios, height / width, at equal area."""
    size: float | int | str = 4.0
    """Side of the square anchor of scale 1, in strides. Paper: 4, which is 32 pixels on P3. 'auto':
    chosen from the boxes of the training set when a run starts (training/anchor_size.py)."""
    order: str = "scale_major"
    """Order of the anchors of a location. scale_major: index = scale * ratios + ratio (Detectron2,
    TF); ratio_major: index = ratio * scales + scale (torchvision, MMDetection, keras-retinanet). It
    permutes the output channels of the heads."""
    rounding: str = "none"
    """none: no rounding. torchvision: truncates sides to whole pixels, then rounds corners half to
    even. detectron: rounds width and height of an anchor of one stride, then scales it
    (generate_anchors.py)."""
    center: float | int = 0.0
    """Centre of the first anchor in strides: 0 (Detectron2, torchvision, MMDetection) or 0.5 (TF,
    keras-retinanet)."""
    strides: str = "power_of_two"
    """power_of_two: 2**level. grid: image size // grid size (torchvision), which differs if the
    image size is not a multiple of 2**level."""

    def __post_init__(self):
        if not 0 <= self.min_level <= self.max_level:
            raise ValueError(
                f"anchors.min_level: {self.min_level} is not between 0 and anchors.max_level "
                f"({self.max_level}); the paper's pyramid is min_level 3, max_level 7"
            )
        for name in ("scales", "ratios"):
            values = getattr(self, name)
            if not values or not all(map(_is_positive, values)):
                raise ValueError(f"anchors.{name}: {values} is not one or more positive numbers")
        if self.size != "auto" and not _is_positive(self.size):
            raise ValueError(f"anchors.size: {self.size} is not a positive number of strides")
        if not math.isfinite(self.center):
            raise ValueError(f"anchors.center: {self.center} is not finite; write 0.0 or 0.5")
        for name, known in (("order", ORDERS), ("rounding", ROUNDINGS), ("strides", STRIDES)):
            one_of(f"anchors.{name}", getattr(self, name), known)

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels, finest first."""
        return tuple(range(self.min_level, self.max_level + 1))

    @property
    def anchors_per_location(self) -> int:
        """Number of scales times number of ratios."""
        return len(self.scales) * len(self.ratios)


def cell_anchors(level: int, config: AnchorConfig) -> Float[np.ndarray, "a 4"]:
    """Returns the anchors of one location, around the origin.

    Args:
      level: pyramid level; the square anchor of scale 1 has a side of size * 2**level.
      config: shapes, order and rounding.

    Returns:
      xyxy pixels relative to the centre of the location, float32. An anchor of ratio r (height /
      width) and side s has a width of s / sqrt(r) and a height of s * sqrt(r).
    """
    if config.size == "auto":
        raise ValueError("anchors.size: 'auto' becomes a number when a run starts; write a number")
    sides = config.size * 2.0**level * np.array(config.scales, np.float64)
    if config.rounding == "torchvision":
        sides = np.trunc(sides)
    ratios = np.array(config.ratios, np.float64)
    if config.order == "scale_major":
        sides, ratios = np.repeat(sides, len(ratios)), np.tile(ratios, len(sides))
    else:
        sides, ratios = np.tile(sides, len(ratios)), np.repeat(ratios, len(sides))
    width, height = 1 / np.sqrt(ratios), np.sqrt(ratios)  # for a side of 1
    if config.rounding == "detectron":
        width = np.round(2**level * width) / 2**level
        height = np.round(2**level * width * ratios) / 2**level
    half_width, half_height = sides * width / 2, sides * height / 2
    corners = np.stack([-half_width, -half_height, half_width, half_height], axis=1)
    if config.rounding == "torchvision":
        corners = np.round(corners)
    return corners.astype(np.float32)


def feature_shapes(image_size: tuple[int, int], config: AnchorConfig) -> list[tuple[int, int]]:
    """Returns the grids (height, width) of the levels: the image size, halved and rounded up.

    Stride-2 convolutions with torch's padding give these sizes for every image.

    Args:
      image_size: (height, width) of the network's input in pixels, padding included.
      config: the levels.

    Raises:
      ValueError: if a side is smaller than one pixel.
    """
    height, width = (int(side) for side in image_size)
    if min(height, width) < 1:
        raise ValueError(f"image_size: {image_size} is not (height, width) of at least 1 pixel")
    return [(-(-height // 2**level), -(-width // 2**level)) for level in config.levels]


def anchors_for_image(
    image_size: tuple[int, int], config: AnchorConfig
) -> tuple[Float[np.ndarray, "_ 4"], ...]:
    """Returns all anchors of an image, per level.

    Args:
      image_size: (height, width) of the network's input in pixels, padding included.
      config: shapes, order, centres and strides.

    Returns:
      One float32 array [h*w*a 4] per level, xyxy pixels, in the order of the heads' outputs: H
      outermost, then W, then the anchors of the location.

    Raises:
      ValueError: if a side is smaller than one pixel.
    """
    return tuple(
        _tile(cell_anchors(level, config), *centres)
        for level, centres in zip(config.levels, grid_centres(image_size, config), strict=True)
    )


def grid_centres(
    image_size: tuple[int, int], config: AnchorConfig
) -> list[tuple[Float[np.ndarray, "h"], Float[np.ndarray, "w"]]]:
    """Returns the centres of the locations of each level: y of rows and x of columns, in pixels.

    Args:
      image_size: (height, width) of the network's input in pixels, padding included.
      config: centres and strides.

    Raises:
      ValueError: if a side is smaller than one pixel.
    """
    centres = []
    for level, shape in zip(config.levels, feature_shapes(image_size, config), strict=True):
        stride = _stride(image_size, shape, level, config)
        y, x = ((np.arange(n) + config.center) * s for n, s in zip(shape, stride, strict=True))
        centres.append((y, x))
    return centres


def _stride(image_size, shape, level, config):
    if config.strides == "grid":
        return image_size[0] // shape[0], image_size[1] // shape[1]
    return 2**level, 2**level


def _tile(cell, y, x):
    """Repeats the anchors of a location over the grid."""
    y, x = np.meshgrid(y, x, indexing="ij")
    centres = np.stack([x, y, x, y], axis=-1)[:, :, None]
    return (centres + cell).reshape(-1, 4).astype(np.float32)


def _is_positive(value) -> bool:
    return math.isfinite(value) and value > 0
