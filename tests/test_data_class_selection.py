"""Some classes of a dataset, and merged ones: config.data.classes."""

import dataclasses

import numpy as np
import pytest
from memory_data import memory_dataset, objects_of
from small import small_config

from retinanet_jax.data.class_selection import select_classes
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset

NAMES = ("car", "van", "dog", "a=b")
BOXES = [[0, 0, 9, 9], [1, 0, 9, 9], [2, 0, 9, 9], [3, 0, 9, 9]]


@pytest.fixture
def dataset():
    """Category ids 1 to 4; the first image has each class once, the second only a dog."""
    objects = [objects_of(BOXES, [0, 1, 2, 3]), objects_of(BOXES[:1], [2])]
    truth = {
        "images": [{"id": 100}, {"id": 101}],
        "annotations": [{"id": i, "image_id": 100, "category_id": i} for i in (1, 2, 3, 4)],
        "categories": [{"id": i, "name": n, "supercategory": "x"} for i, n in enumerate(NAMES, 1)],
    }
    return dataclasses.replace(memory_dataset(objects, NAMES), ground_truth=lambda: truth)


@pytest.mark.parametrize(
    ("chosen", "names", "ids", "kept", "labels"),
    [
        (["dog", "car"], ("dog", "car"), (3, 1), [0, 2], [1, 0]),
        (["car", "van=car"], ("car",), (1,), [0, 1], [0, 0]),
        (["van=car"], ("car",), (1,), [0, 1], [0, 0]),
        (["van=vehicle", "car=vehicle"], ("vehicle",), (2,), [0, 1], [0, 0]),
        (["a=b", "dog"], ("a=b", "dog"), (4, 3), [2, 3], [1, 0]),
    ],
)
def test_classes_are_selected_and_merged(dataset, chosen, names, ids, kept, labels):
    found = select_classes(dataset, chosen)
    assert (found.categories.names, found.categories.ids) == (names, ids)
    for objects in (found.source[0], found.source.annotated(0)):
        np.testing.assert_array_equal(objects.boxes, np.float32(BOXES)[kept])
        np.testing.assert_array_equal(objects.labels, labels)
        assert len(objects.crowd) == len(objects.areas) == len(kept)
    assert len(found.source) == 2 and found.source.image_id(1) == 101
    truth = found.ground_truth()
    assert [a["id"] for a in truth["annotations"]] == [i + 1 for i in kept]
    assert [a["category_id"] for a in truth["annotations"]] == [ids[label] for label in labels]
    assert [(c["name"], c["id"]) for c in truth["categories"]] == list(zip(names, ids, strict=True))
    assert all(c["supercategory"] == "x" for c in truth["categories"])


def test_an_unknown_class_is_an_error(dataset):
    assert select_classes(dataset, ()) is dataset
    with pytest.raises(DataError, match="has no class 'cat'; its classes are car, van, dog"):
        select_classes(dataset, ["car", "cat=car"])


def test_the_config_selects_classes():
    config = small_config(data__classes=("star", "ring=circle"))
    dataset = load_dataset(config.data, "validation")
    assert dataset.categories.names == ("star", "circle")
    used = {a["category_id"] for a in dataset.ground_truth()["annotations"]}
    assert used <= set(dataset.categories.ids)
