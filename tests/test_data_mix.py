"""Mixing datasets: every image as often as it was asked for, labels by the classes' names."""

import json
from collections import Counter

import cv2
import numpy as np
import pytest
from image_data import Images

from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.example_sources import Slice
from retinanet_jax.data.mix import Relabelled, load_training_set
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig
from retinanet_jax.data.pipeline.input_pipeline import ExampleError, PipelineConfig, train_batches
from retinanet_jax.data.pipeline.order import TrainOrder
from retinanet_jax.data.splits import Part, parse_part, split_range

SQUARE = PipelineConfig(min_side=32, max_side=32, max_boxes=4, num_threads=2)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def write_folder(root, names, count, split="train", first_id=0):
    """Images that hold one object each, in the colour that its category is named for."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for i in range(count):
        name = names[i % len(names)]
        pixels = np.full((32, 32, 3), COLOURS[name][::-1], np.uint8)
        cv2.imwrite(str(root / "images" / f"{i}.png"), pixels)
        images.append({"id": first_id + i, "file_name": f"{i}.png", "height": 32, "width": 32})
        annotations.append(
            {"id": i + 1, "image_id": first_id + i, "category_id": 7 + i % len(names)}
            | {"bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
        )
    categories = [{"id": 7 + i, "name": name} for i, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def config(root, cache_dir, *mix, train="train"):
    cache = str(cache_dir)
    return DataConfig(
        name="folder",
        root=str(root),
        cache_dir=cache,
        train_split=train,
        val_share=0.0,
        mix=tuple(mix),
    )


def batches_of(mixture, batch_size):
    flips = AugmentationConfig()
    return train_batches(
        mixture, batch_size=batch_size, seed=0, settings=SQUARE, augmentation=flips
    )


@pytest.fixture
def cells(tmp_path):
    """Two folders whose categories stand in another order, with other ids."""
    main = write_folder(tmp_path / "main", ["red", "green", "blue"], 6)
    more = write_folder(tmp_path / "more", ["blue", "red"], 4, split="val", first_id=2)
    return main, more


def test_labels_follow_the_names_and_every_image_comes_as_often_as_asked(cells, tmp_path):
    main, more = cells
    mixture = load_training_set(config(main, tmp_path / "c", f"folder:{more}:val*2"))
    assert mixture.categories.names == ("red", "green", "blue")
    assert len(mixture.source) == 6 + 2 * 4
    batches = batches_of(mixture, 4)
    seen = Counter()
    for step in range(14):  # four epochs
        host = batches[step]
        for image, labels, image_id in zip(
            host.batch.images, host.batch.gt_labels, host.image_ids, strict=True
        ):
            colour = list(COLOURS.values()).index(tuple(image[10, 10].tolist()))
            assert labels.tolist() == [colour, -1, -1, -1]
            seen[int(image_id)] += 1
    # Ids 2 to 5 are in both folders: once in the main one, twice in the other.
    assert seen == {0: 4, 1: 4, 2: 12, 3: 12, 4: 12, 5: 12}


def test_repeated_images_are_augmented_anew(cells, tmp_path):
    main, _ = cells
    half = load_training_set(config(main, tmp_path / "c", f"folder:{main}:train[:50%]"))
    assert len(half.source) == 6 + 3
    mixture = load_training_set(config(main, tmp_path / "c", f"folder:{main}:train*9"))
    plan = TrainOrder(mixture.source, 60, 0, SQUARE)(0)
    assert sorted(plan.indices) == list(range(60))
    host = batches_of(mixture, 60)[0]
    flips = host.batch.flip[host.image_ids == 0]
    assert len(flips) == 10 and flips.any() and not flips.all()


def test_without_a_mixture_the_dataset_is_unchanged(cells, tmp_path):
    dataset = load_training_set(config(cells[0], tmp_path / "c"))
    assert dataset.name.endswith("main train") and len(dataset.source) == 6


def test_an_unknown_category_is_named(cells, tmp_path):
    main, more = cells
    with pytest.raises(DataError) as caught:
        load_training_set(config(more, tmp_path / "c", f"folder:{main}:train", train="val"))
    text = str(caught.value)
    assert "'green'" in text and "blue, red" in text and f"folder:{main}:train" in text
    assert "remove this one from data.mix" in text


def test_errors_and_batches_name_the_dataset(cells, tmp_path):
    main, more = cells
    mixture = load_training_set(config(main, tmp_path / "c", f"folder:{more}:val"))
    batches = batches_of(mixture, 10)
    text = batches.describe(0)
    assert sorted(part.split(": ")[0] for part in text.split("; ")) == [
        f"{main} train",
        f"{more} val",
    ]
    ids = dict(part.split(": ") for part in text.split("; "))
    assert sorted(ids[f"{more} val"].split(", ")) == ["2", "3", "4", "5"]

    class Broken(Relabelled):
        def __getitem__(self, index):
            raise OSError("the disk is gone")

    mixture.source._parts = (mixture.source._parts[0], Broken(mixture.source._parts[1], [0, 1, 2]))
    with pytest.raises(ExampleError, match=rf"dataset {more} val, example \d \(image id [2-5]\)"):
        batches[0]


def test_a_slice_has_the_ids_sizes_and_objects_of_its_images():
    whole = Images(10)
    part = Slice(whole, range(4, 8))
    assert [part.image_id(i) for i in range(len(part))] == [104, 105, 106, 107]
    assert part[1].image_id == 105 and part.image_size(2) == whole.image_size(6)
    np.testing.assert_array_equal(part.annotated(3).boxes, whole[7].boxes)


def test_parts_are_parsed():
    assert parse_part("folder:~/cells:train*3") == Part("folder", "~/cells", "train", 3)
    assert parse_part("coco:~/tfds:train[:10%]") == Part("coco", "~/tfds", "train[:10%]", 1)
    assert parse_part("voc::test") == Part("voc", "", "test", 1)
    assert parse_part("folder:a:b:val[2:5]*12") == Part("folder", "a:b", "val[2:5]", 12)


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("train", range(16)),
        ("train[3:-2]", range(3, 14)),
        ("train[:10%]", range(2)),  # 1.6 images
        ("train[90%:]", range(14, 16)),  # from 14.4 on
        ("train[-10%:]", range(14, 16)),
        ("train[20%:40%]", range(3, 6)),  # 3.2 to 6.4
    ],
)
def test_percentages_are_rounded_to_the_closest_image(split, numbers):
    assert split_range(split, 16) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "folder",
        "folder:train",
        "cells:~/x:train",
        "folder::train",
        "folder:x:",
        "folder:x:all",
        "folder:x:train[",
        "folder:x:train*",
        "folder:x:train*0",
        "folder:x:train*-1",
    ],
)
def test_an_invalid_part_is_an_error_with_the_fix(text):
    with pytest.raises(DataError, match=r"write|take"):
        parse_part(text)
    with pytest.raises(ValueError, match="data"):
        DataConfig(mix=(text,))
