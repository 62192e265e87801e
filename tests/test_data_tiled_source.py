"""Tiles as examples: their pixels and objects, which of them are kept, their order."""

import dataclasses

import numpy as np
import pytest
from image_data import SMALL, Images
from test_data_mix import config, write_folder

from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig
from retinanet_jax.data.pipeline.input_pipeline import train_batches
from retinanet_jax.data.records import Categories
from retinanet_jax.data.tiled_source import (
    EvaluationTiles,
    evaluated_tiles,
    tile_corners,
    training_tiles,
)

CATEGORIES = Categories(("a", "b", "c"), (1, 2, 3))


def tiled(count: int = 14, tile: int = 40, overlap: float = 0.2) -> Dataset:
    return training_tiles(Dataset(Images(count), CATEGORIES, dict, "images"), tile, overlap)


def objects_by_hand(boxes, top, left, height, width):
    """(row, box) of the objects of which a window shows a quarter or more."""
    for row, (x1, y1, x2, y2) in enumerate(boxes.astype(float)):
        box = [max(x1, left), max(y1, top), min(x2, left + width), min(y2, top + height)]
        shown = max(0, box[2] - box[0]) * max(0, box[3] - box[1])
        if shown > 0 and shown >= 0.25 * (x2 - x1) * (y2 - y1):
            yield row, [box[0] - left, box[1] - top, box[2] - left, box[3] - top]


def test_a_tile_is_the_window_of_its_image_with_the_objects_that_it_shows():
    source, images = tiled().source, Images(14)
    cut = 0
    for number, tile in enumerate(source.tiles):
        image, example = images[tile.index], source[number]
        rows, columns = (slice(at, at + side) for at, side in zip(tile[2:4], tile[4:], strict=True))
        np.testing.assert_array_equal(example.image, image.image[rows, columns])
        assert example.image.shape[:2] == source.image_size(number) == tile[4:]
        assert example.image_id == source.image_id(number) == 100 + tile.index
        expected = list(objects_by_hand(image.boxes, *tile[2:]))
        boxes = np.array([box for _, box in expected]).reshape(-1, 4)
        np.testing.assert_allclose(example.boxes, boxes, atol=1e-4)
        np.testing.assert_array_equal(example.labels, image.labels[[row for row, _ in expected]])
        sides = boxes[:, 2:] - boxes[:, :2]
        np.testing.assert_allclose(example.areas, sides.prod(axis=1), rtol=1e-4, atol=1e-2)
        cut += len(boxes) < len(image.boxes)
        stated = source.annotated(number)
        for field in ("boxes", "labels", "crowd", "areas"):
            np.testing.assert_array_equal(getattr(stated, field), getattr(example, field))
        assert stated.size == tile[4:] and example.original_size is None
    assert cut > 10


def test_all_tiles_with_objects_are_kept_and_as_many_others_spread_over_the_images():
    dataset, images = tiled(40, tile=24), Images(40)
    everything = [
        (index, *corner)
        for index in range(40)
        for corner in tile_corners(images.image_size(index), 24, 0.2)
    ]
    sides = {i: [min(24, side) for side in images.image_size(i)] for i in range(40)}
    filled = {
        (i, y, x) for i, y, x in everything if [*objects_by_hand(images[i].boxes, y, x, *sides[i])]
    }
    kept = [tile[:1] + tile[2:4] for tile in dataset.source.tiles]
    assert kept == [place for place in everything if place in set(kept)]  # in order, once each
    empty = [place for place in kept if place not in filled]
    assert filled < set(kept) and len(empty) == len(filled) < len(everything) - len(filled)
    assert len({index for index, *_ in empty}) > 20
    assert f"{len(kept)} tiles of 40 images" in dataset.name
    line = f"{len(filled)} have objects, {len(empty)} of {len(everything) - len(filled)} others"
    assert line in dataset.found


def test_crowds_alone_do_not_count_as_objects():
    class Crowds(Images):
        def annotated(self, index):
            found = super().annotated(index)
            return found._replace(crowd=np.ones(len(found.boxes), bool))

    dataset = Dataset(Crowds(8), CATEGORIES, dict, "images")
    assert len(training_tiles(dataset, 40, 0.2).source) == 0


def test_batches_of_tiles_depend_on_seed_and_step_alone():
    def batches():
        return train_batches(
            tiled(), batch_size=4, seed=3, settings=SMALL, augmentation=AugmentationConfig()
        )

    stream = batches().iterate(7)
    for step in (7, 8):
        again, resumed = batches()[step], next(stream)
        np.testing.assert_array_equal(again.batch.images, resumed.batch.images)
        np.testing.assert_array_equal(again.batch.gt_boxes, resumed.batch.gt_boxes)
        np.testing.assert_array_equal(again.image_ids, resumed.image_ids)


def test_a_training_set_is_cut_with_the_datasets_mixed_in(tmp_path):
    main = write_folder(tmp_path / "main", ["red", "green", "blue"], 6)
    more = write_folder(tmp_path / "more", ["blue", "red"], 4, split="val")
    data = dataclasses.replace(
        config(main, tmp_path / "c", f"folder:{more}:val"), tile=32, tile_overlap=0.0
    )
    with pytest.raises(DataError, match=r"none of its 10 images is larger than a tile of 32 pix"):
        load_training_set(data)
    whole = load_training_set(dataclasses.replace(data, tile=None))
    cut = training_tiles(whole, 16 + 1, 0.0)
    assert len(cut.source) == 4 * 10  # the object in the middle reaches into each quarter
    assert [cut.source.part_name(i) for i in (0, 39)] == [whole.source.part_name(i) for i in (0, 9)]


def test_evaluation_has_each_image_whole_and_all_of_its_tiles():
    images = Images(7)
    tiles = EvaluationTiles(images, 48, 0.25)
    for index in range(7):
        of_image = [(n, tile) for n, tile in enumerate(tiles.tiles) if tile.index == index]
        size = images.image_size(index)
        (number, whole), *parts = of_image
        assert whole[2:] == (0, 0, *size)
        np.testing.assert_array_equal(tiles[number].image, images[index].image)
        corners = tile_corners(size, 48, 0.25)
        assert [tile[2:4] for _, tile in parts] == (corners if len(corners) > 1 else [])
        assert [tiles.image_id(n) for n, _ in of_image] == [n for n, _ in of_image]
        assert {tile.image_id for _, tile in of_image} == {100 + index}


def test_a_report_on_the_data_has_all_tiles_of_an_evaluation():
    images = Images(7)
    dataset = Dataset(images, CATEGORIES, dict, "images")
    cut = evaluated_tiles(dataset, 48, 0.25)
    corners = [(i, *c) for i in range(7) for c in tile_corners(images.image_size(i), 48, 0.25)]
    assert [(tile.index, tile.top, tile.left) for tile in cut.source.tiles] == corners
    assert cut.name == f"images, {len(corners)} tiles of 7 images"
    assert evaluated_tiles(dataset, None, 0.25) is dataset


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tile": 20}, "data.tile: 20 must be a side in pixels of at least 32"),
        (
            {"tile": 64, "tile_overlap": 1.0},
            "data.tile_overlap: 1.0 must be a fraction from 0 to 0.9",
        ),
    ],
)
def test_invalid_settings_are_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**fields)
