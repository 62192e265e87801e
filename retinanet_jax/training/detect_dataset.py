"""Detects in every image of a dataset: in one or several views, or in tiles."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.core.postprocess import Detections, PostprocessConfig
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.pipeline.input_pipeline import eval_batches
from retinanet_jax.data.tiled_source import EvaluationTiles
from retinanet_jax.inference.test_time_augmentation import (
    ONE_VIEW,
    View,
    ViewOptions,
    map_back,
    merge,
    scaled,
)
from retinanet_jax.inference.tiles import check_tiles, merge_tiles
from retinanet_jax.runtime.mesh import fetch, for_this_process, gathered, prefetch_to_device


def detect_dataset(
    predict_fn: Callable[..., Detections],
    variables: Any,
    dataset: Dataset,
    config: Config,
    mesh: Mesh,
    options: ViewOptions = ONE_VIEW,
    *,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[int, Detections]]:
    """Yields the image id and the detections of every image; `valid` marks the detections.

    With config.data.tile, it detects in the tiles and in the whole image; with several views, in
    each view. Results are merged as in the Detector. For the arguments, see `evaluate`.

    Raises:
        ConfigError: tiles together with several views.
    """
    views, tile, tiles = options.views, config.data.tile, None
    if tile is not None:
        check_tiles(tile, config.data.tile_overlap, views)
        tiles = EvaluationTiles(dataset.source, tile, config.data.tile_overlap)
        dataset = dataclasses.replace(dataset, source=tiles)
    # Once, and not for every batch.
    variables, count = gathered(variables, mesh), len(dataset.source)
    found: dict[int, list[Detections]] = {}
    for number, view in enumerate(views):
        batches = _batches(dataset, config, mesh, view)
        done = number * count
        for seen in _in_view(predict_fn, variables, batches, view):
            for image_id, detections in seen:
                found.setdefault(image_id, []).append(detections)
            done = min(done + config.evaluation.batch_size, (number + 1) * count)
            on_batch(done, len(views) * count)
    if tiles is not None:
        yield from _merged_tiles(found, tiles, config.postprocess, options.merge)
        return
    for image_id, parts in found.items():
        one = len(parts) == 1
        yield image_id, parts[0] if one else merge(parts, config.postprocess, options.merge)


def _batches(dataset: Dataset, config: Config, mesh: Mesh, view: View) -> Iterator[tuple]:
    """(batch, ids) on the devices. Image ids have 64 bits, arrays there 32: an id is a pair."""
    settings = scaled(for_this_process(config.pipeline), view)
    size = config.evaluation.batch_size
    return prefetch_to_device(
        iter(eval_batches(dataset, batch_size=size, settings=settings, mirrored=view.flip)),
        lambda host: (host.batch, host.image_ids.view(np.int32).reshape(-1, 2)),
        mesh,
    )


def _in_view(
    predict_fn: Callable[..., Detections], variables: Any, batches: Iterator[tuple], view: View
) -> Iterator[list[tuple[int, Detections]]]:
    """For each batch, its image ids with their detections, in pixels of the image."""
    pending = None
    for batch, ids in batches:
        running = predict_fn(variables, batch), batch.valid, ids, batch.original_sizes
        # The host handles the previous batch while the devices run this one.
        if pending is not None:
            yield list(_by_image(*fetch(pending), view))
        pending = running
    if pending is not None:
        yield list(_by_image(*fetch(pending), view))


def _by_image(
    found: Detections, valid: np.ndarray, ids: np.ndarray, sizes: np.ndarray, view: View
) -> Iterator[tuple[int, Detections]]:
    image_ids = np.ascontiguousarray(ids).view(np.int64)[:, 0]
    for row in np.flatnonzero(valid):
        one = Detections(*(part[row] for part in found))
        yield int(image_ids[row]), map_back(one, view, sizes[row, 1])


def _merged_tiles(
    found: Mapping[int, Sequence[Detections]],
    tiles: EvaluationTiles,
    config: PostprocessConfig,
    how: str,
) -> Iterator[tuple[int, Detections]]:
    """The detections of images from those of their tiles, by the number of the tile."""
    parts: dict[int, list] = {}
    for number in sorted(found):
        tile = tiles.tiles[number]
        parts.setdefault(tile.image_id, []).append(((tile.top, tile.left), found[number][0]))
    for image_id, part in parts.items():
        yield image_id, merge_tiles(part, config, how)
