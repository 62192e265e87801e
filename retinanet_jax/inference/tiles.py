"""Detection in tiles of a large image, whose small objects a resized image would lose."""

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
    """Raises ConfigError for an invalid side or overlap, or for other views than the plain one."""
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
    """The detections of the whole image and of its tiles, merged.

    The whole image finds the objects that are larger than a tile. An image that is not larger than
    a tile is seen as a whole alone.

    Args:
      see: runs the network on (key, image) pairs; the results come in order.
      key: of the result.
      image: path or pixels; or the error that ended a video.
      tile: side in pixels.
      overlap: share of the side.
      config: IoU of boxes that are merged, and the number of detections.
      how: see `merge`.

    Returns:
      The detections; or the error, if the image is not readable.
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
    """The detections of an image from those of its tiles, given with their corners (y, x)."""
    if len(found) == 1:  # an image that is not larger than a tile, as a whole
        return found[0][1]
    moved = [part._replace(boxes=part.boxes + np.float32([x, y, x, y])) for (y, x), part in found]
    # A power of two, so that `merge` compiles for a few numbers of tiles only.
    empty = moved[0]._replace(valid=np.zeros_like(moved[0].valid))
    count = 2 ** int(np.ceil(np.log2(len(moved))))
    return merge(moved + [empty] * (count - len(moved)), config, how)
