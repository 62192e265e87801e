"""Shapes of the built-in dataset: their outlines, exact boxes and colors."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from retinanet_jax.data.shapes_background import slope

CLASSES = ("circle", "ring", "square", "triangle", "star")
SIZE_RANGE = (7 / 64, 7 / 8)  # longest side of a box over the shorter side of the image
MIN_CONTRAST = 110.0  # distance of a fill from the ground beneath it, of 255 * sqrt(3) at most
SUPERSAMPLING = 4  # masks are drawn that much larger; boxes are exact to its reciprocal in pixels

# Eye sensitivity: green counts more than red, red more than blue. Sums to 3.
_CHANNEL_WEIGHTS = np.array([0.9, 1.4, 0.7], np.float32)


class Shape(NamedTuple):
    """A shape in place: coverage in [0, 1] of the pixels from (top, left) on, and its box."""

    coverage: np.ndarray
    top: int
    left: int
    box: tuple[float, float, float, float]
    label: int
    area: float


def put_anywhere(
    rng: np.random.Generator, outlines: list[np.ndarray], size: tuple[int, int], side: float
) -> list[np.ndarray]:
    """Returns outlines scaled to the longest side `side`, at a random place in the image."""
    low, high = outlines[0].min(0), outlines[0].max(0)
    zoom = side / (high - low).max()
    extent = (high - low) * zoom
    corner = rng.uniform(0, 1, 2) * (np.array(size[::-1]) - extent)
    return [(outline - low) * zoom + corner for outline in outlines]


def random_distractor(rng: np.random.Generator, size: tuple[int, int]) -> Shape:
    """Returns a shape of no class in the colors of a random class, randomly rotated."""
    outline = DISTRACTORS[rng.integers(len(DISTRACTORS))]
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    side = min(size) * np.exp(rng.uniform(np.log(SIZE_RANGE[0]), np.log(0.35)))
    outlines = put_anywhere(rng, [outline @ turn], size, side)
    return rasterize(outlines, size, int(rng.integers(len(CLASSES))))


def rasterize(outlines: list[np.ndarray], size: tuple[int, int], label: int) -> Shape:
    """Fills outlines (xy in pixels; the second one is a hole) at SUPERSAMPLING times the size."""
    fine = SUPERSAMPLING
    left, top = np.floor(outlines[0].min(0)).astype(int)
    right, bottom = np.minimum(np.ceil(outlines[0].max(0)).astype(int), size[::-1])
    mask = np.zeros(((bottom - top) * fine, (right - left) * fine), np.uint8)
    # A pixel of the mask is a square around its centre; the outline runs on the squares' corners.
    points = [np.rint((o - (left, top)) * fine - 0.5).astype(np.int32) for o in outlines]
    cv2.fillPoly(mask, points, 255)
    x, y, width, height = cv2.boundingRect(mask)
    x1, y1 = left + x / fine, top + y / fine
    coverage = cv2.resize(mask, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return Shape(
        coverage=coverage * np.float32(1 / 255),
        top=int(top),
        left=int(left),
        box=(x1, y1, x1 + width / fine, y1 + height / fine),
        label=label,
        area=cv2.countNonZero(mask) / fine**2,
    )


def outlines_of(name: str, angle: float) -> list[np.ndarray]:
    """Returns closed outlines [points 2] around the origin, the outermost first."""
    if name in ("circle", "ring"):
        outer = _polygon(64, angle)
        return [outer] if name == "circle" else [outer, 0.55 * outer]
    if name == "star":
        outline = _polygon(10, angle)
        outline[1::2] *= 0.42
        return [outline]
    if name == "square":
        return [_polygon(4, angle + np.pi / 4)]
    return [_polygon(3, angle)]


def _polygon(corners: int, angle: float) -> np.ndarray:
    angles = angle + np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


_BAR = np.array([[-4, -1], [4, -1], [4, 1], [-4, 1]], float)
_CHEVRON = np.array([[-3, -2], [0, 1], [3, -2], [3, 0], [0, 3], [-3, 0]], float)
_HALF_DISC = _polygon(64, 0.0)[:33]
_CROSS = np.array(
    [
        *([-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1]),
        *([1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1]),
    ],
    float,
)
DISTRACTORS = (_BAR, _CHEVRON, _HALF_DISC, _CROSS)


def paint(rng: np.random.Generator, image: Float[np.ndarray, "3 h w"], shape: Shape) -> None:
    """Blends the shape, lit from a random side, into the image in place."""
    height, width = shape.coverage.shape
    region = image[:, shape.top : shape.top + height, shape.left : shape.left + width]
    fill = _contrasting_color(_family(rng, shape.label), _sample(region, shape.coverage))
    light = 1 + slope(rng, (height, width)) * np.float32(rng.uniform(0.0, 0.3))
    color = np.minimum(light * fill[:, None, None], 255)
    color -= region
    color *= shape.coverage
    region += color


def _sample(region: Float[np.ndarray, "3 h w"], coverage: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """Pixels beneath the shape on a grid of at most 12 x 12: enough to know their colors."""
    down, right = (max(1, side // 12) for side in coverage.shape)
    return region[:, ::down, ::right][:, coverage[::down, ::right] > 0].T


def _family(rng: np.random.Generator, label: int) -> Float[np.ndarray, "n 3"]:
    """Random colors, RGB in 0 .. 255, of the family that the class has.

    Shape and color both tell the class; without the color
    a network that starts from nothing needs an hour of a CPU instead of minutes.
    """
    middle = 360 / len(CLASSES) * label
    hue = (middle + rng.uniform(-0.35, 0.35, 24) * 360 / len(CLASSES)) % 360
    saturation, value = rng.uniform(0.45, 1, 24), rng.uniform(0.35, 1, 24)
    colors = np.stack([hue, saturation, value], axis=-1).astype(np.float32)
    return cv2.cvtColor(colors[None], cv2.COLOR_HSV2RGB)[0] * 255


def _contrasting_color(
    candidates: Float[np.ndarray, "c 3"], ground: Float[np.ndarray, "n 3"]
) -> np.ndarray:
    """The first of the candidates that is far from nearly all of the ground, or the farthest."""
    # |c - g|^2 = |c|^2 - 2 c.g + |g|^2 as one matrix product.
    squares = [(colors**2 @ _CHANNEL_WEIGHTS) for colors in (candidates, ground)]
    cross = (candidates * _CHANNEL_WEIGHTS) @ ground.T
    distance = squares[0][:, None] - 2 * cross + squares[1]
    # The tenth percentile: a few pixels that agree do not hide a shape.
    low = len(ground) // 10
    contrast = np.partition(distance, low, axis=1)[:, low]
    enough = np.flatnonzero(contrast > MIN_CONTRAST**2)
    return candidates[enough[0] if len(enough) else np.argmax(contrast)]
