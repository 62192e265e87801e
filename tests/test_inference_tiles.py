"""Tiles of large images: where they lie, and that their detections land in the image."""

import itertools

import numpy as np
import pytest

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.core.postprocess import Detections, PostprocessConfig
from retinanet_jax.data.tiled_source import tile_corners
from retinanet_jax.inference.streaming import Seen
from retinanet_jax.inference.test_time_augmentation import PLAIN, View, check_merge
from retinanet_jax.inference.tiles import check_tiles, see_tiles

CONFIG = PostprocessConfig(max_detections=8)


@pytest.mark.parametrize("size", [(64, 64), (65, 200), (300, 40), (129, 129)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5])
def test_tiles_cover_the_image_and_overlap(size, overlap):
    seen = np.zeros(size, int)
    corners = tile_corners(size, 64, overlap)
    for y, x in corners:
        assert y + min(64, size[0]) <= size[0] and x + min(64, size[1]) <= size[1]
        seen[y : y + 64, x : x + 64] += 1
    assert seen.min() == 1 or (overlap and seen.min() >= 1)
    assert len(set(corners)) == len(corners)
    rows = sorted({y for y, _ in corners})
    assert all(b - a <= round(64 * (1 - overlap)) for a, b in itertools.pairwise(rows))


def bright_spot(crops):
    """A network that finds the box around the bright pixels of an image."""
    for key, pixels in crops:
        boxes, valid = np.zeros((2, 4), np.float32), np.zeros(2, bool)
        ys, xs = np.nonzero(pixels[..., 0] > 200)
        if len(ys):
            boxes[0], valid[0] = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), True
        scores = np.float32([0.9, 0.0])
        found = Detections(boxes, scores, np.zeros(2, np.int32), valid)
        yield Seen(key, pixels, pixels.shape[:2], [found])


def test_detections_of_tiles_are_moved_and_merged():
    image = np.zeros((200, 300, 3), np.uint8)
    image[150:160, 250:270] = 255
    seen = see_tiles(bright_spot, "key", image, 64, 0.2, CONFIG)
    (found,) = seen.found
    assert seen.key == "key" and seen.size == (200, 300)
    kept = np.asarray(found.boxes)[np.asarray(found.valid)]
    np.testing.assert_array_equal(kept, [[250, 150, 270, 160]])  # one, though several tiles see it


@pytest.mark.parametrize(("tile", "views"), [(49, 3), (50, 1), (64, 1)])
def test_an_image_that_is_not_larger_than_a_tile_is_seen_once(tile, views):
    seen = []

    def see(images):
        for key, pixels in images:
            seen.append(pixels.shape)
            yield from bright_spot([(key, pixels)])

    see_tiles(see, 0, np.full((40, 50, 3), 9, np.uint8), tile, 0.2, CONFIG)
    assert seen[0] == (40, 50, 3) and len(seen) == views


def test_invalid_tiles_are_errors(tmp_path):
    missing = see_tiles(bright_spot, 0, str(tmp_path / "none.jpg"), 64, 0.2, CONFIG)
    assert "none.jpg" in str(missing.error)
    for tile, overlap in ((0, 0.2), (640.5, 0.2), (640, 1.0), (640, "a")):
        with pytest.raises(ConfigError, match="must be a"):
            check_tiles(tile, overlap, PLAIN)
    with pytest.raises(ConfigError, match="not supported together with flip or scales"):
        check_tiles(64, 0.2, (View(flip=True),))
    with pytest.raises(ConfigError, match="merge: 'soft' is not one of nms, weighted"):
        check_merge("soft")
