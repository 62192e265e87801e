"""Transforms: the box still encloses its colour, sizes follow the rule, flipping undoes itself."""

import re

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from retinanet_jax.data import transforms
from retinanet_jax.data.batch import Example
from retinanet_jax.data.transforms import (
    RESIZINGS,
    Draws,
    augment,
    crop,
    fitted_size,
    flip,
    resize,
)

COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
quick = hypothesis.settings(max_examples=60, deadline=None)
unit = st.floats(0, 1, exclude_max=True)


@st.composite
def coloured_examples(draw) -> Example:
    """Black pictures with one rectangle per colour, apart from each other."""
    height, width = draw(st.integers(60, 140)), draw(st.integers(60, 140))
    image, boxes = np.zeros((height, width, 3), np.uint8), []
    for number in range(3):
        # Each in a third of the width of its own.
        low, high = number * width // 3 + 2, (number + 1) * width // 3 - 2
        x1 = draw(st.integers(low, high - 8))
        x2 = draw(st.integers(x1 + 6, high))
        y1 = draw(st.integers(0, height - 8))
        y2 = draw(st.integers(y1 + 6, height))
        image[y1:y2, x1:x2] = COLOURS[number]
        boxes.append([x1, y1, x2, y2])
    boxes = np.array(boxes, np.float32)
    crowd = np.array([False, True, False])
    return Example(image, boxes, np.arange(3, dtype=np.int32), crowd, 5)


def assert_boxes_fit_the_colours(example: Example, tolerance: float = 1.0) -> None:
    for box, label in zip(example.boxes, example.labels, strict=True):
        rows, columns = np.nonzero(example.image[..., label] > 124)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, found, atol=tolerance)


@quick
@hypothesis.given(coloured_examples(), st.floats(0.5, 3))
def test_resized_boxes_fit_the_colours(example, factor):
    size = tuple(round(side * factor) for side in example.image.shape[:2])
    resized = resize(example, size)
    assert resized.image.shape[:2] == size
    assert resized.original_size == example.image.shape[:2]
    assert_boxes_fit_the_colours(resized)
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
        resized = resize(whole_picture(image), size, "torchvision").image
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


def whole_picture(image):
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    return Example(image, *nothing, 0)


def test_each_project_resizes_in_its_way():
    """Halved thrice, single bright columns: averaged, antialiased, or skipped."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::8] = 240
    means = {how: resize(whole_picture(image), (8, 8), how).image.mean() for how in RESIZINGS}
    assert means["opencv"] == 30 and abs(means["detectron2"] - 30) < 2
    assert means["mmdetection"] == means["torchvision"] == 0
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    pil = Image.fromarray(picture).resize((31, 23), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize(whole_picture(picture), (23, 31), "detectron2").image, pil)


@quick
@hypothesis.given(coloured_examples())
def test_flipping_twice_changes_nothing(example):
    flipped = flip(example)
    assert_boxes_fit_the_colours(flipped, tolerance=0)
    again = flip(flipped)
    np.testing.assert_array_equal(again.image, example.image)
    np.testing.assert_array_equal(again.boxes, example.boxes)
    np.testing.assert_array_equal(again.labels, example.labels)


@quick
@hypothesis.given(coloured_examples(), unit, unit, st.integers(20, 59), st.integers(20, 59))
def test_cropped_boxes_fit_what_is_left(example, y, x, height, width):
    top = int(y * (example.image.shape[0] - height + 1))
    left = int(x * (example.image.shape[1] - width + 1))
    window = crop(example, top, left, (height, width))
    assert window.image.shape == (height, width, 3)
    assert_boxes_fit_the_colours(window, tolerance=0)
    for label in set(range(3)) - set(window.labels.tolist()):
        share = (window.image[..., label] > 0).sum() / (example.image[..., label] > 0).sum()
        assert share < transforms.MIN_VISIBLE_SHARE
    np.testing.assert_array_equal(window.crowd, window.labels == 1)


@quick
@hypothesis.given(coloured_examples(), st.tuples(unit, unit, unit, unit), st.booleans())
def test_augmented_boxes_fit_the_colours(example, numbers, flip_half):
    result = augment(
        example,
        Draws(*numbers),
        min_side=96,
        max_side=160,
        bound=(128, 128),
        flip_half=flip_half,
        scale_jitter=(0.5, 2.0),
    )
    assert max(result.image.shape[:2]) <= 128
    assert result.original_size == example.image.shape[:2]
    assert result.image.dtype == np.uint8 and result.boxes.dtype == np.float32
    assert_boxes_fit_the_colours(result, tolerance=1.5)


def test_without_jitter_only_the_flip_is_random():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[1, 2, 30, 20]], np.float32)
    example = Example(image, boxes, np.zeros(1, np.int32), np.zeros(1, bool), 0)
    plain = resize(example, (20, 30))
    options = dict(min_side=20, max_side=30, bound=(32, 32), scale_jitter=(1.0, 1.0))
    for draws, expected in [
        (Draws(0.9, 0.1, 0.2, 0.3), plain),
        (Draws(0.49, 0.7, 0.8, 0.9), flip(plain)),
    ]:
        result = augment(example, draws, flip_half=True, **options)
        np.testing.assert_array_equal(result.image, expected.image)
        np.testing.assert_array_equal(result.boxes, expected.boxes)
    unflipped = augment(example, Draws(0.1, 0, 0, 0), flip_half=False, **options)
    np.testing.assert_array_equal(unflipped.image, plain.image)


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
    example = Example(
        stripes, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), 0
    )
    assert (resize(example, (2, 2)).image == 50).all()
    ramp = example._replace(image=np.array([[[0] * 3, [100] * 3]], np.uint8))
    np.testing.assert_array_equal(resize(ramp, (1, 4)).image[0, :, 0], [0, 25, 75, 100])


def test_pictures_without_boxes_pass_through():
    image = np.zeros((30, 40, 3), np.uint8)
    none = Example(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), 0)
    for result in (resize(none, (15, 20)), flip(none), crop(none, 3, 4, (10, 10))):
        assert result.boxes.shape == (0, 4) and result.labels.shape == result.crowd.shape == (0,)


def test_draws_depend_on_the_key_alone():
    assert transforms.draw((1, 2, 3)) == transforms.draw((1, 2, 3))
    assert len({transforms.draw((1, 2, index)) for index in range(100)}) == 100
    numbers = np.array([transforms.draw((0, 0, index)) for index in range(2000)])
    np.testing.assert_allclose(numbers.mean(0), 0.5, atol=0.03)
