"""Transforms: the box still encloses its colour, sizes follow the rule, hidden boxes go."""

import re

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from painted import assert_example_fits, painted_examples, where_painted
from PIL import Image

from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.pipeline.transforms import RESIZINGS, crop, fitted_size, resize

quick = hypothesis.settings(max_examples=60, deadline=None)
unit = st.floats(0, 1, exclude_max=True)
shares = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@quick
@hypothesis.given(painted_examples(), st.floats(0.5, 3))
def test_resized_boxes_fit_the_colours(example, factor):
    size = tuple(round(side * factor) for side in example.image.shape[:2])
    resized = resize(example, size)
    assert resized.image.shape[:2] == size
    assert resized.original_size == example.image.shape[:2]
    assert_example_fits(resized)
    np.testing.assert_array_equal(resized.crowd, example.crowd)


def test_resizing_equals_torchvision(golden_dir):
    """Stored are values in [0, 1]; the larger results with every third row and column only.

    Exact coordinates, other than torch's float32 ones, would differ by 1e-5 and more.
    """
    with np.load(golden_dir / "units.npz") as units:
        stored = {key: units[key] for key in units if re.fullmatch(r"resize/\d+x\d+", key)}
        image = units["resize/image"]
    assert stored
    for key, wanted in stored.items():
        size = tuple(map(int, key.removeprefix("resize/").split("x")))
        resized = resize(whole_image(image), size, "torchvision").image
        assert resized.dtype == np.float32 and resized.shape[:2] == size
        step = -(-size[0] // wanted.shape[1])
        found = resized[::step, ::step].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0, err_msg=key)


def test_sizes_equal_torchvision(golden_dir):
    with np.load(golden_dir / "units.npz") as units:
        table = units["resize/size_table"].tolist()
    for low, high, height, width, *wanted in table:
        size = fitted_size((height, width), low, high, floor=True)
        padded = [-(-side // 32) * 32 for side in size]
        assert [*size, *padded] == wanted, (low, high, height, width)


def whole_image(image):
    nothing = (np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0))
    return Example(image, *nothing, image_id=0)


def test_each_project_resizes_in_its_way():
    """Halved thrice, single bright columns: averaged, antialiased, or skipped."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::8] = 240
    means = {how: resize(whole_image(image), (8, 8), how).image.mean() for how in RESIZINGS}
    assert means["opencv"] == 30 and abs(means["detectron2"] - 30) < 2
    assert means["mmdetection"] == means["torchvision"] == 0
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    pil = Image.fromarray(picture).resize((31, 23), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize(whole_image(picture), (23, 31), "detectron2").image, pil)


@quick
@hypothesis.given(painted_examples(), unit, unit, st.integers(20, 59), st.integers(20, 59), shares)
def test_cropped_boxes_fit_what_is_left(example, y, x, height, width, share):
    top = int(y * (example.image.shape[0] - height + 1))
    left = int(x * (example.image.shape[1] - width + 1))
    window = crop(example, top, left, (height, width), share)
    assert window.image.shape == (height, width, 3)
    assert_example_fits(window, tolerance=0)
    np.testing.assert_array_equal(window.crowd, window.labels == 1)
    for label in range(3):
        counts = (where_painted(image, label).sum() for image in (window.image, example.image))
        seen, whole = counts
        wanted = seen > 0 and (label == 1 or seen >= share * whole)
        assert (label in window.labels) == wanted


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),  # 640 * 800 / 480 = 1066.67
        ((427, 640), (800, 1199)),  # 640 * 800 / 427 = 1199.06
        ((640, 427), (1199, 800)),
        ((375, 1242), (402, 1333)),  # 375 * 1333 / 1242 = 402.47: the long side decides
        ((800, 1333), (800, 1333)),
        ((1, 4000), (1, 1333)),
    ],
)
def test_the_short_side_is_800_unless_the_long_one_would_pass_1333(size, expected):
    assert fitted_size(size, 800, 1333) == expected


@quick
@hypothesis.given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_fitted_size_keeps_both_limits_and_touches_one(height, width):
    fitted = fitted_size((height, width), 600, 1000)
    assert min(fitted) <= 600 and max(fitted) <= 1000
    assert min(fitted) == 600 or max(fitted) == 1000


def test_shrinking_far_averages_and_growing_is_bilinear():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::4] = 200  # plain bilinear sampling at a quarter would miss every stripe
    example = whole_image(stripes)
    assert (resize(example, (2, 2)).image == 50).all()
    ramp = example._replace(image=np.array([[[0] * 3, [100] * 3]], np.uint8))
    np.testing.assert_array_equal(resize(ramp, (1, 4)).image[0, :, 0], [0, 25, 75, 100])


def test_images_without_boxes_pass_through():
    none = whole_image(np.zeros((30, 40, 3), np.uint8))
    for result in (resize(none, (15, 20)), crop(none, 3, 4, (10, 10), 0.25)):
        assert result.boxes.shape == (0, 4)
        assert result.labels.shape == result.crowd.shape == result.areas.shape == (0,)


def test_a_box_is_kept_at_exactly_the_smallest_visible_share():
    boxes = np.array([[0, 0, 8, 4], [0, 0, 9, 4]], np.float32)  # the window shows 4/8 and 4/9
    example = whole_image(np.zeros((10, 10, 3), np.uint8))._replace(
        boxes=boxes,
        labels=np.array([0, 1], np.int32),
        crowd=np.zeros(2, bool),
        areas=np.float32([32, 36]),
    )
    assert crop(example, 0, 0, (10, 4), 0.5).labels.tolist() == [0]


def test_pixels_are_averaged_below_half_the_size_only():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for side, interpolation in ((12, cv2.INTER_LINEAR), (8, cv2.INTER_LINEAR), (7, cv2.INTER_AREA)):
        expected = cv2.resize(image, (side, side), interpolation=interpolation)
        np.testing.assert_array_equal(resize(whole_image(image), (side, side)).image, expected)
