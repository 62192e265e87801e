"""Datasets of a function: examples are checked when they are read."""

import numpy as np
import pytest

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.from_function import dataset_of
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.records import Categories

CATEGORIES = Categories(("cat", "dog"), (1, 2))
VALID = {
    "image": np.zeros((30, 40, 3), np.uint8),
    "boxes": np.array([[1, 2, 11, 22], [0, 0, 40, 30]], np.float32),
    "labels": np.array([0, 1], np.int32),
    "crowd": np.array([False, True]),
    "areas": np.array([100.0, 1200.0]),
}


def dataset(**fields):
    """Example 0 is valid, example 1 has these fields."""

    def make(index):
        return Example(**(VALID | (fields if index else {})), image_id=index)

    return dataset_of(make, 2, CATEGORIES, "mine")


def boxes(*rows):
    return np.array([[0, 0, 5, 5], *rows], np.float32)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"labels": np.array([0, 2])}, "a label is 2; use labels from 0 to 1"),
        ({"labels": np.array([-1, 0])}, "a label is -1"),
        ({"labels": np.array([0.0, 1.0])}, r"labels are float64 of shape \(2,\); pass integers"),
        ({"labels": np.array([0])}, r"labels are int64 of shape \(1,\)"),
        ({"boxes": boxes([5, 5, 3, 9])}, r"box 1 is \[5.0, 5.0, 3.0, 9.0\]; pass finite corners"),
        ({"boxes": boxes([5, 5, 5, 9])}, "box 1 is"),
        ({"boxes": boxes([0, 0, np.nan, 9])}, "box 1 is"),
        (
            {"boxes": boxes([0, 0, 41, 9])},
            "box 1, .*, extends beyond its image of 40 x 30; clip it",
        ),
        ({"boxes": boxes([-1, 0, 4, 9])}, "box 1, .*, extends beyond"),
        ({"boxes": np.zeros((2, 4), int)}, r"boxes are int64 of shape \(2, 4\); pass float32"),
        ({"image": np.zeros((30, 40, 3), np.float32)}, "image is float32 .*; pass RGB"),
        ({"image": np.zeros((30, 40), np.uint8)}, r"image is uint8 of shape \(30, 40\)"),
        ({"crowd": np.array([0, 1])}, "crowd are int64"),
        ({"areas": np.array([1, 2])}, "areas are int64"),
    ],
)
def test_an_invalid_example_is_named_at_its_first_read(fields, message):
    source = dataset(**fields).source
    source[0]
    for read in (source.__getitem__, source.annotated, source.image_size):
        with pytest.raises(DataError, match=f"mine: example 1: {message}"):
            read(1)


def test_rounding_at_the_border_and_no_boxes_are_valid():
    for rows in (boxes([-0.4, 0, 40.4, 30.4]), np.zeros((0, 4), np.float32)):
        count = len(rows)
        fields = {"labels": np.zeros(count, np.int64), "crowd": np.zeros(count, bool)}
        assert len(dataset(boxes=rows, areas=np.zeros(count), **fields).source[1].boxes) == count


def test_equal_ids_are_an_error_when_it_is_scored():
    same = dataset_of(lambda i: Example(**VALID, image_id=7), 2, CATEGORIES, "mine")
    with pytest.raises(DataError, match="example 1: has the same id as example 0"):
        same.ground_truth()
