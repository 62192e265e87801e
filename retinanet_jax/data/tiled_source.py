"""Tiles of large images: their places, and a dataset with one example per tile."""

import dataclasses
import functools
import itertools
import numbers
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.example_sources import Annotated, IdentifiedSource
from retinanet_jax.data.pipeline import transforms
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig
from retinanet_jax.data.pipeline.batch import Example

OVERLAP = 0.2  # of neighbouring tiles, as a share of their side
SMALLEST_TILE = 32  # pixels


class Tile(NamedTuple):
    """The part of image `index` of a source from (top, left) on, of a height and width in pixels.

    `image_id` is that of the image.
    """

    index: int
    image_id: int
    top: int
    left: int
    height: int
    width: int


def check_tile(
    tile: Any, overlap: Any, tile_field: str = "tile", overlap_field: str = "overlap"
) -> None:
    """Raises ValueError for an invalid side (None: no tiles) or overlap."""
    is_side = isinstance(tile, numbers.Integral) and not isinstance(tile, bool)
    if tile is not None and not (is_side and tile >= SMALLEST_TILE):
        wanted = f"a side in pixels of at least {SMALLEST_TILE}; write e.g. 640"
        raise ValueError(f"{tile_field}: {tile!r} must be {wanted}")
    if not isinstance(overlap, numbers.Real) or not 0 <= overlap <= 0.9:
        wanted = "a fraction from 0 to 0.9; write e.g. 0.2"
        raise ValueError(f"{overlap_field}: {overlap!r} must be {wanted}")


def tile_corners(size: tuple[int, int], tile: int, overlap: float | int) -> list[tuple[int, int]]:
    """Returns the upper left corners (y, x) of tiles that cover an image of (height, width).

    The tiles have equal sides where the image allows it, so that they share one canvas; those at
    the right and lower edge are moved inside, and overlap more.
    """
    step = max(1, round(tile * (1 - overlap)))

    def starts(length: int) -> list[int]:
        last = max(0, length - tile)
        return [*range(0, last, step), last]

    return [(y, x) for y in starts(size[0]) for x in starts(size[1])]


def tiles_of_image(
    source: IdentifiedSource, index: int, tile: int, overlap: float | int
) -> list[Tile]:
    """Returns the tiles of one image; an image without a side above `tile` is one tile."""
    height, width = size = source.image_size(index)
    rows, columns = min(tile, height), min(tile, width)
    place = index, source.image_id(index)
    return [Tile(*place, y, x, rows, columns) for y, x in tile_corners(size, tile, overlap)]


class TiledSource:
    """Tiles of the images of a source, one example each; no pixels are kept.

    Objects are clipped to the tile. An object is left out of a tile that shows less of it than the
    default of augmentation.min_visible_share (a quarter), as after random cropping. The image id is
    that of the image.

    Args:
      source: source of the images.
      tiles: tiles of these images.
    """

    def __init__(self, source: IdentifiedSource, tiles: Sequence[Tile]):
        self._source, self.tiles = source, tiles

    def __len__(self) -> int:
        return len(self.tiles)

    def __getattr__(self, name: str) -> Any:
        if name != "part_name":  # only a source of several datasets has it
            raise AttributeError(name)
        return lambda index: self._source.part_name(self.tiles[index].index)

    def __getitem__(self, index: int) -> Example:
        tile = self.tiles[index]
        return _cut(self._source[tile.index], tile)

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) of the tile in pixels."""
        return self.tiles[index].height, self.tiles[index].width

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of a tile, without decoding its image."""
        tile = self.tiles[index]
        return _cut_objects(self._source.annotated(tile.index), tile)

    def image_id(self, index: int) -> int:
        """Returns the id of the image that the tile is from."""
        return self.tiles[index].image_id


class EvaluationTiles(TiledSource):
    """All tiles of images, after each image as a whole; the image id is the number of the tile.

    The last image that was decoded is kept: its tiles follow each other.
    """

    def __init__(self, source: IdentifiedSource, tile: int, overlap: float | int):
        tiles = []
        for index in range(len(source)):
            whole = Tile(index, source.image_id(index), 0, 0, *source.image_size(index))
            parts = tiles_of_image(source, index, tile, overlap)
            tiles += [whole] if len(parts) == 1 else [whole, *parts]
        super().__init__(source, tiles)
        self._lock, self._last = threading.Lock(), (-1, None)

    def __getitem__(self, index: int) -> Example:
        tile = self.tiles[index]
        with self._lock:  # else several threads would decode the same image
            if self._last[0] != tile.index:
                self._last = tile.index, self._source[tile.index]
            example = self._last[1]
        return _cut(example, tile)._replace(image_id=index)

    def image_id(self, index: int) -> int:
        """Returns the number of the tile."""
        return index


def _cut(example: Example, tile: Tile) -> Example:
    window = tile.height, tile.width
    share = AugmentationConfig.min_visible_share
    cut = transforms.crop(example, tile.top, tile.left, window, share)
    return cut._replace(image=np.ascontiguousarray(cut.image), original_size=None)


def _cut_objects(annotated: Annotated, tile: Tile) -> Annotated:
    pixels = np.broadcast_to(np.uint8(0), (*annotated.size, 3))  # without memory
    cut = _cut(Example(pixels, *annotated[:4], image_id=0), tile)
    return Annotated(cut.boxes, cut.labels, cut.crowd, cut.areas, (tile.height, tile.width))


def training_tiles(dataset: Any, tile: int | None, overlap: float | int) -> Any:
    """Returns a dataset.Dataset with one example per tile; the dataset itself without `tile`.

    All tiles with an object that is not a crowd are kept, and at most as many other tiles, evenly
    spread over the dataset, since most of a large image is background.

    Args:
      dataset: dataset to train on.
      tile: side of a tile in pixels.
      overlap: overlap of neighbouring tiles, as a fraction of their side.

    Raises:
      DataError: no image is larger than a tile.
    """
    if tile is None:
        return dataset
    source = dataset.source
    by_image = [tiles_of_image(source, index, tile, overlap) for index in range(len(source))]
    if all(len(tiles) == 1 for tiles in by_image):
        what = f"none of its {len(source)} images is larger than a tile of {tile} pixels"
        raise DataError("data.tile", dataset.name, "", what, "use a smaller data.tile, or none")
    tiles = list(itertools.chain.from_iterable(by_image))
    filled = _have_objects(source, by_image)
    kept = filled | _spread(~filled, int(filled.sum()))
    chosen = [tile for tile, is_kept in zip(tiles, kept, strict=True) if is_kept]
    counts = f"{len(chosen)} tiles of {len(source)} images"
    line = (
        f"{dataset.name}: {counts}, {tile}x{tile} pixels, overlap {overlap:g}; "
        f"{filled.sum()} have objects, {(kept & ~filled).sum()} of {(~filled).sum()} others "
        "are kept"
    )
    return dataclasses.replace(
        dataset,
        source=TiledSource(source, chosen),
        name=f"{dataset.name}, {counts}",
        ground_truth=functools.partial(_no_ground_truth, dataset.name),
        found="\n".join(filter(None, [dataset.found, line])),
    )


def evaluated_tiles(dataset: Any, tile: int | None, overlap: float | int) -> Any:
    """Returns a dataset.Dataset with one example per tile that an evaluation detects in.

    For a report on the data: evaluations also detect in the whole images, and score whole images.
    Without `tile`, the dataset as it is.
    """
    if tile is None:
        return dataset
    source = dataset.source
    by_image = (tiles_of_image(source, index, tile, overlap) for index in range(len(source)))
    tiles = list(itertools.chain.from_iterable(by_image))
    name = f"{dataset.name}, {len(tiles)} tiles of {len(source)} images"
    return dataclasses.replace(dataset, source=TiledSource(source, tiles), name=name)


def _have_objects(source: IdentifiedSource, by_image: Sequence[Sequence[Tile]]) -> np.ndarray:
    """For each tile, whether it shows an object that is not a crowd."""
    found = []
    for index, tiles in enumerate(by_image):
        annotated = source.annotated(index)
        found += [bool((~_cut_objects(annotated, tile).crowd).any()) for tile in tiles]
    return np.array(found, bool)


def _spread(mask: np.ndarray, count: int) -> np.ndarray:
    """The mask with at most `count` of its places, evenly spread."""
    places = np.flatnonzero(mask)
    result = np.zeros_like(mask)
    if len(places):
        chosen = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
        result[places[chosen]] = True
    return result


def _no_ground_truth(name: str) -> dict:
    raise ValueError(f"{name}: tiles are for training only; evaluate the whole images")
