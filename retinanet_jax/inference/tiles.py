"""Detection in tiles of a large image, whose small objects a resized image would lose."""

import numbers
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.core.postprocess import Detections, PostprocessConfig
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import ImageLike, read_image
from retinanet_jax.inference.streaming import Seen
from retinanet_jax.inference.test_time_augmentation import PLAIN, View, merge

OVERLAP = 0.2  # of neighbouring tiles, as a share of their side


def check_tile(tile: Any, overlap: Any) -> None:
    """Raises ConfigError for an invalid side or overlap."""
    if not isinstance(tile, numbers.Integral) or isinstance(tile, bool) or tile < 32:
        raise ConfigError(f"tile: {tile!r} is not a side in pixels of at least 32; write e.g. 640")
    if not isinstance(overlap, numbers.Real) or not 0 <= overlap <= 0.9:
        raise ConfigError(f"overlap: {overlap!r} is not a share from 0 to 0.9; write e.g. 0.2")


def tile_corners(size: tuple[int, int], tile: int, overlap: float | int) -> list[tuple[int, int]]:
    """The upper left corners (y, x) of tiles that cover an image of (height, width).

    The tiles have equal sides where the image allows it, so that they share one canvas; those at
    the right and lower edge are moved inside, and overlap more.
    """
    step = max(1, round(tile * (1 - overlap)))

    def starts(length: int) -> list[int]:
        last = max(0, length - tile)
        return [*range(0, last, step), last]

    return [(y, x) for y in starts(size[0]) for x in starts(size[1])]


def see_in_tiles(
    see: Callable[[Iterable[tuple[Any, np.ndarray]]], Iterator[Seen]],
    items: Iterable[tuple[Any, ImageLike]],
    views: tuple[View, ...],
    tile: Any,
    overlap: Any,
    config: PostprocessConfig,
) -> Iterator[Seen]:
    """`see_tiles` of each (key, image); the arguments are checked at once.

    Raises:
      ConfigError: an invalid side or overlap, or other views than the plain one.
    """
    check_tile(tile, overlap)
    if views != PLAIN:
        raise ConfigError("tile: not supported together with flip or scales; leave these out")
    return (see_tiles(see, key, image, tile, overlap, config) for key, image in items)


def see_tiles(
    see: Callable[[Iterable[tuple[Any, np.ndarray]]], Iterator[Seen]],
    key: Any,
    image: ImageLike | DataError,
    tile: int,
    overlap: float | int,
    config: PostprocessConfig,
) -> Seen:
    """The detections of the whole image and of its tiles, merged by class-wise NMS.

    The whole image finds the objects that are larger than a tile.

    Args:
      see: runs the network on (key, image) pairs; the results come in order.
      key: of the result.
      image: path or pixels; or the error that ended a video.
      tile: side in pixels.
      overlap: share of the side.
      config: of the NMS, and the number of detections.

    Returns:
      The detections; or the error, if the image is not readable or smaller than a tile.
    """
    try:
        if isinstance(image, DataError):
            raise image
        pixels = read_image(image)
        size = pixels.shape[:2]
        if tile > max(size):
            what = f"is {size[0]}x{size[1]} (height x width), smaller than a tile of {tile}"
            name = image if isinstance(image, str | os.PathLike) else "image"
            raise DataError("tile", name, "", what, "leave out tile, or use a smaller one")
    except DataError as error:
        return Seen(key, image, error=error)
    corners = tile_corners(size, tile, overlap)
    crops = [((0, 0), pixels)]
    crops += [((y, x), pixels[y : y + tile, x : x + tile]) for y, x in corners]
    found = [_moved(seen.found[0], *seen.key) for seen in see(crops)]
    # A power of two, so that `merge` compiles for a few numbers of tiles only.
    empty = found[0]._replace(valid=np.zeros_like(found[0].valid))
    count = 2 ** int(np.ceil(np.log2(len(found))))
    merged = merge(found + [empty] * (count - len(found)), config)
    return Seen(key, image, size, [merged])


def _moved(found: Detections, y: int, x: int) -> Detections:
    return found._replace(boxes=found.boxes + np.float32([x, y, x, y]))
