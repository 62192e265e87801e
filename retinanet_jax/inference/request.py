"""What a call of the Detector asks for: how each image is seen, and which detections are kept."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from retinanet_jax.core.postprocess import PostprocessConfig
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import ImageLike
from retinanet_jax.data.records import Categories
from retinanet_jax.data.tiled_source import OVERLAP
from retinanet_jax.inference.results import ImageDetections
from retinanet_jax.inference.selection import check_selection
from retinanet_jax.inference.streaming import SeenStream, to_result
from retinanet_jax.inference.test_time_augmentation import PLAIN, View, check_merge, views_of
from retinanet_jax.inference.tiles import check_tiles, see_tiles

Items = Iterable[tuple[Any, ImageLike | DataError]]
"""Pairs of a key and an image, or the error that ended a video."""
See = Callable[[Items, tuple[View, ...], int], SeenStream]
"""Function (items, views, rows) that runs the network on the items in batches of `rows` images."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of a call of the Detector; see Detector.__call__."""

    threshold: float | int | None = None
    classes: Sequence[str] | None = None
    max_detections: int | None = None
    flip: bool = False
    scales: Sequence[float | int] = (1.0,)
    tile: int | None = None
    overlap: float | int = OVERLAP
    merge: str = "nms"

    def __post_init__(self):
        if isinstance(self.classes, Iterator):  # else the check would use it up
            object.__setattr__(self, "classes", tuple(self.classes))

    @property
    def views(self) -> tuple[View, ...]:
        """How the network sees each image; see `views_of`."""
        return views_of(self.flip, self.scales)

    def check(self, limits: PostprocessConfig, categories: Categories) -> None:
        """Raises ConfigError for an invalid argument.

        Args:
            limits: limits of the compiled function; see `check_selection`.
            categories: the known classes.
        """
        views = self.views
        check_selection(limits, categories, self.threshold, self.classes, self.max_detections)
        check_merge(self.merge)
        if self.tile is not None:
            check_tiles(self.tile, self.overlap, views)

    def see(
        self,
        network: See,
        items: Items,
        limits: PostprocessConfig,
        rows: int,
        tile_rows: int,
    ) -> SeenStream:
        """Runs the network on the images in order, in their views or in their tiles.

        Args:
            network: see See.
            items: the images.
            limits: limits for merging tiles.
            rows: number of images in a batch.
            tile_rows: number of tiles in a batch.
        """
        if self.tile is None:
            return network(items, self.views, rows)
        see = functools.partial(network, views=PLAIN, rows=tile_rows)
        options = self.tile, self.overlap, limits, self.merge
        return (see_tiles(see, key, image, *options) for key, image in items)

    def results(
        self, stream: SeenStream, categories: Categories, limits: PostprocessConfig
    ) -> Iterator[tuple[Any, ImageDetections]]:
        """Yields the keys and the selected detections; an error closes the stream."""
        with contextlib.closing(stream):
            for seen in stream:
                found = to_result(seen, categories, limits, self.merge)
                yield seen.key, found.select(self.threshold, self.classes, self.max_detections)
