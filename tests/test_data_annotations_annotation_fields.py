"""Values that annotation files write in several ways: sizes, points, and marks of objects."""

import pytest

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.data_errors import DataError


@pytest.mark.parametrize(
    "height, width, wanted",
    [
        (48, 64, (48, 64)),
        ("48", 64.0, (48, 64)),
        (1, 999_999, (1, 999_999)),
        (0, 64, None),
        (48, 1_000_000, None),
        (48, 64.5, None),
        (None, 64, None),
        (48, True, None),
        ([48], "wide", None),
    ],
)
def test_a_size_is_of_whole_sides_that_an_image_can_have(height, width, wanted):
    assert fields.size(height, width) == wanted


def test_a_point_is_a_pair_or_an_object():
    assert fields.points([[1, 2], {"x": 3.5, "y": 4}], "a.json", "") == [(1, 2), (3.5, 4)]


@pytest.mark.parametrize(
    "value", [None, [], [[1]], [[1, "2"]], [[1, 2, 3]], [{"x": 1}], [{"x": 1, "y": None}], ["ab"]]
)
def test_points_without_numbers_are_an_error(value):
    with pytest.raises(DataError, match=r"shape 1: corners is .*; write numbers for the x and y"):
        fields.points(value, "a.json", "shape 1", name="corners")
