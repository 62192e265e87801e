"""Detects in tiles of a large image, whose small objects would be lost by resizing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.core.postprocess import Detections, PostprocessConfig
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import ImageLike, read_image
from retinanet_jax.data.tiled_source import check_tile, tile_corners
from retinanet_jax.inference.streaming import Seen
from retinanet_jax.inference.test_time_augmentation import PLAIN, View, merge


def check_tiles(tile: Any, overlap: Any, views: tuple[View, ...]) -> None:
    """Raises ConfigError if side or overlap is invalid, or if there are other views than PLAIN."""
    try:
        check_tile(tile, overlap)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if views != PLAIN:
        raise ConfigError("tile: not supported together with flip or scales; leave these out")


def see_tiles(
    see: Callable[[Iterable[tuple[Any, np.ndarray]]], Iterator[Seen]],
    key: Any,
    image: ImageLike | DataError,
    tile: int,
    overlap: float | int,
    config: PostprocessConfig,
    how: str = "nms",
) -> Seen:
    """Returns the detections of the whole image and of its tiles, merged.

    The whole image gives the objects that are larger than a tile. If the image is not larger than a
    tile, only the whole image is used.

    Args:
      see: function that runs the network on (key, image) pairs, with results in order.
      key: key of the result.
      image: path or pixels of the image; or the error that ended a video.
      tile: side of a tile in pixels.
      overlap: overlap of the tiles, as a fraction of their side.
      config: settings of NMS: the IoU of boxes that are merged, and the number of detections.
      how: how to merge; see `merge`.

    Returns:
      The detections, or the error if the image cannot be read.
    """
    try:
        if isinstance(image, DataError):
            raise image
        pixels = read_image(image)
    except DataError as error:
        return Seen(key, image, error=error)
    size = pixels.shape[:2]
    corners = tile_corners(size, tile, overlap) if max(size) > tile else []
    crops = [((0, 0), pixels)]
    crops += [((y, x), pixels[y : y + tile, x : x + tile]) for y, x in corners]
    found = [(seen.key, seen.found[0]) for seen in see(crops)]
    return Seen(key, image, size, [merge_tiles(found, config, how)])


def merge_tiles(
    found: Sequence[tuple[tuple[int, int], Detections]], config: PostprocessConfig, how: str = "nms"
) -> Detections:
    """Merges the detections of an image's tiles, which are given with their corners (y, x)."""
    if len(found) == 1:  # an image that is not larger than a tile, as a whole
        return found[0][1]
    moved = [part._replace(boxes=part.boxes + np.float32([x, y, x, y])) for (y, x), part in found]
    # A power of two, so that `merge` compiles for a few numbers of tiles only.
    empty = moved[0]._replace(valid=np.zeros_like(moved[0].valid))
    count = 2 ** int(np.ceil(np.log2(len(moved))))
    return merge(moved + [empty] * (count - len(moved)), config, how)
