"""Augmentation on the host: painted boxes through all of it, pure draws, views within canvases."""

import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from painted import assert_boxes_fit, assert_example_fits, painted, painted_examples, where_painted

from retinanet_jax.data.pipeline import mosaic
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig, with_largest_scale
from retinanet_jax.data.pipeline.batch import IDENTITY_COLOR, box_areas, collate, without_objects
from retinanet_jax.data.pipeline.canvas import (
    PipelineConfig,
    canvas_for,
    canvases,
    fitted_sizes,
    jitter_bound,
)
from retinanet_jax.data.pipeline.host_augmentation import (
    Draws,
    augment,
    draw,
    draw_view,
)
from retinanet_jax.data.pipeline.transforms import resize
from retinanet_jax.training.device_augmentation import augment_on_device

SMALL = PipelineConfig(min_side=96, max_side=160, pad_multiple=32, max_boxes=12)
quick = hypothesis.settings(max_examples=60, deadline=None)
keys = st.tuples(*[st.integers(0, 99)] * 4)
sides = st.integers(1, 3000)
KINDS = {
    "flip": {},
    "scales": {"scales": (64, 80, 96)},
    "jitter": {"scale_jitter": (0.5, 2.0)},
    "large jitter": {"scale_jitter": (0.1, 2.0)},
    "crop": {"crop": (0.3, 1.0)},
    "all": {"scales": (64, 96), "scale_jitter": (0.5, 1.5), "crop": (0.6, 1.0), "flip": True},
}


def augmented(example, key, settings=SMALL, **fields):
    config = AugmentationConfig(**{"flip": False} | fields)
    settings = with_largest_scale(settings, config)
    return augment(lambda index: example, 0, 1, key, settings, config)


def visible(example):
    """Without the boxes that became too thin for a colour to be found in them."""
    thick = (example.boxes[:, 2:] - example.boxes[:, :2]).min(1, initial=9) >= 3
    return example._replace(labels=np.where(thick, example.labels, -1))


@pytest.mark.parametrize("kind", KINDS)
@quick
@hypothesis.given(example=painted_examples(), key=keys)
def test_augmented_boxes_fit_the_colours(kind, example, key):
    result = augmented(example, key, **KINDS[kind])
    assert result.original_size == example.image.shape[:2]
    assert result.image.dtype == np.uint8 and result.boxes.dtype == np.float32
    assert_example_fits(visible(result), tolerance=1.5)
    assert (box_areas(result.boxes) > 0).all()


@quick
@hypothesis.given(example=painted_examples(), key=keys)
def test_boxes_fit_the_colours_in_the_batch_after_the_device(example, key):
    result = visible(augmented(example, key, **KINDS["all"]))
    canvas = canvas_for([result.image.shape[:2]], SMALL)
    batch = augment_on_device(collate([result], canvas, 4, 1).batch)
    assert_boxes_fit(batch.images[0], batch.gt_boxes[0], batch.gt_labels[0], tolerance=1.5)


def mosaic_of(examples, key, **fields):
    """The mosaic of these four, in the order in which they are read."""
    config = AugmentationConfig(mosaic=1.0, flip=False, **fields)
    remaining = iter(examples)
    return augment(lambda index: next(remaining), 0, 100, key, SMALL, config)


@quick
@hypothesis.given(
    st.lists(st.tuples(*[st.integers(60, 200)] * 2), min_size=4, max_size=4),
    keys,
    st.sampled_from([{}, {"scale_jitter": (0.4, 1.2)}, {"crop": (0.5, 1.0)}]),
)
def test_boxes_of_a_mosaic_fit_the_colours(sizes, key, fields):
    examples = [
        painted((h, w), [[w // 5, h // 4, w - w // 3, h - h // 5]], labels=[label])
        for label, (h, w) in enumerate(sizes)
    ]
    result = mosaic_of(examples, key, **fields)
    assert result.image.shape[:2] == jitter_bound(sizes[0], SMALL)
    assert_example_fits(visible(result), tolerance=1.5)
    assert len(set(result.labels.tolist())) == len(result.labels)


def test_a_mosaic_has_four_images_around_its_centre():
    """Images as large as their quadrant has room for are seen whole; the rest is grey."""
    settings = PipelineConfig(min_side=100, max_side=100, pad_multiple=100)
    config = AugmentationConfig(mosaic=1.0, flip=False, scale_jitter=(0.15, 0.15))
    boxes = [[0, 0, 20, 40]]
    examples = [painted((40, 20), boxes, [i], [i == 2])._replace(image_id=i) for i in range(4)]
    asked = []

    def read(index):
        asked.append(index)
        return examples[len(asked) - 1]

    result = augment(read, 7, 50, (0, 0, 0, 7), settings, config)
    draws = draw((0, 0, 0, 7))
    row, column = mosaic.center_at((100, 100), draws.center_down, draws.center_right)
    # 40 x 20 fitted into 100 x 100 is 100 x 50, of that .15.
    wanted = [
        [column - 8, row - 15, column, row],
        [column, row - 15, column + 8, row],
        [column - 8, row, column, row + 15],
        [column, row, column + 8, row + 15],
    ]
    np.testing.assert_allclose(result.boxes, wanted)
    np.testing.assert_array_equal(result.labels, range(4))
    np.testing.assert_array_equal(result.crowd, [False, False, True, False])
    np.testing.assert_allclose(result.areas, 8 * 15 / 2)
    assert result.image_id == 0 and result.original_size == (40, 20)
    assert (result.image == mosaic.FILL).all(-1).sum() == 100 * 100 - 4 * 8 * 15
    assert asked[0] == 7 and len(asked) == 4 and all(0 <= index < 50 for index in asked)


def test_other_images_of_mosaics_are_drawn_uniformly_and_centres_too():
    config, asked = AugmentationConfig(mosaic=0.25), []

    def read(index):
        asked.append(index)
        return painted((100, 100), [])

    for index in range(2000):
        augment(read, index % 5, 5, (1, 3, 0, index), SMALL, config)
    others = len(asked) - 2000
    assert others == pytest.approx(3 * 500, rel=0.1)
    shares = np.bincount(asked, minlength=5) - 400
    np.testing.assert_allclose(shares / others, 0.2, atol=0.04)
    centres = [mosaic.center_at((100, 200), *numbers) for numbers in ((0.0, 0.0), (0.999, 0.999))]
    assert centres == [(20, 40), (80, 160)]


@quick
@hypothesis.given(keys, st.floats(0, 1), st.floats(0, 1))
def test_quadrants_cover_the_canvas(key, down, right):
    for canvas in ((96, 160), (2, 2), (3, 700)):
        rooms = mosaic.quadrants(canvas, mosaic.center_at(canvas, down, right))
        assert sum(h * w for h, w in rooms) == canvas[0] * canvas[1]
        assert min(min(room) for room in rooms) >= 1


def test_mixup_is_the_mean_of_two_images_with_the_boxes_of_both():
    """A red and a blue box on black; the second image is narrower, with grey beside it."""
    first = painted((96, 150), [[10, 20, 60, 70]], labels=[0])._replace(image_id=1)
    second = painted((96, 96), [[40, 30, 90, 80]], labels=[2], crowd=[True])._replace(image_id=2)
    asked = []

    def read(index):
        asked.append(index)
        return (first, second)[(len(asked) - 1) % 2]

    config = AugmentationConfig(mixup=1.0, flip=False)
    for place in range(1, 301):
        result = augment(read, 7, 50, (0, 3, 0, place), SMALL, config)
    assert result.image.shape == (96, 150, 3)
    for pixel, color in (
        ((25, 20), [125, 0, 0]),
        ((75, 80), [0, 0, 125]),
        ((50, 50), [125, 0, 125]),
        ((50, 140), [mosaic.FILL / 2] * 3),
    ):
        np.testing.assert_array_equal(result.image[pixel], color)
    np.testing.assert_array_equal(result.boxes, [[10, 20, 60, 70], [40, 30, 90, 80]])
    assert result.labels.tolist() == [0, 2] and result.crowd.tolist() == [False, True]
    assert result.image_id == 1 and result.original_size == (96, 150)
    assert set(asked[::2]) == {7} and set(asked[1::2]) == set(range(50))


def test_the_images_of_a_mixup_are_drawn_apart():
    """Red and blue count the columns of the two images: where their windows begin."""
    columns = np.zeros((2, 64, 64, 3), np.uint8)
    columns[0, ..., 0] = columns[1, ..., 2] = 2 * np.arange(64)
    images = itertools.cycle(map(without_objects, columns))
    config = AugmentationConfig(mixup=1.0, crop=(0.5, 0.5), flip=False)
    red, blue = np.array(
        [
            augment(lambda index: next(images), 0, 9, (0, 3, 0, place), SMALL, config).image[9, 0]
            for place in range(30)
        ],
        int,
    ).T[::2]
    assert np.ptp(red) > 20 and np.ptp(blue) > 20 and np.abs(red - blue).max() > 20


@quick
@hypothesis.given(st.lists(st.tuples(sides, sides), min_size=2, max_size=2), keys)
def test_mixed_images_fit_every_canvas_the_first_may_meet(sizes, key):
    images = iter([np.zeros((*size, 3), np.uint8) for size in sizes])
    config = AugmentationConfig(mixup=1.0, scale_jitter=(0.5, 2.0))
    result = augment(lambda index: without_objects(next(images)), 0, 9, key, SMALL, config)
    assert (np.array(result.image.shape[:2]) <= jitter_bound(sizes[0], SMALL)).all()


def test_an_example_depends_on_its_key_alone():
    rng = np.random.default_rng(0)
    images = [
        painted((100, 80), [[10, 10, 60, 50]])._replace(
            image=rng.integers(0, 256, (100, 80, 3), np.uint8)
        )
        for _ in range(6)
    ]
    config = AugmentationConfig(
        scales=(64, 96), scale_jitter=(0.5, 2), crop=(0.5, 1), hue=0.1, mosaic=0.5
    )
    results = [
        [augment(images.__getitem__, i, 6, (0, 3, 1, i), SMALL, config) for i in order]
        for order in (range(6), reversed(range(6)))
    ]
    for one, two in zip(results[0], results[1][::-1], strict=True):
        for ours, theirs in zip(one, two, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_draws_depend_on_the_key_alone_and_are_uniform_and_independent():
    assert draw((1, 2, 3, 4)) == draw((1, 2, 3, 4))
    assert len({draw((1, 2, 3, index)) for index in range(100)}) == 100
    assert len({draw((1, 2, 3, 0)), *(draw((1, 2, 3, 0, place)) for place in (0, 1, 2))}) == 4
    numbers = np.array([draw((0, 3, 0, index)) for index in range(3000)])
    np.testing.assert_allclose(numbers.mean(0), 0.5, atol=0.03)
    correlations = np.corrcoef(numbers.T) - np.eye(len(Draws._fields))
    assert np.abs(correlations).max() < 0.08
    assert np.mean(
        [augmented(painted((9, 9), []), (0, 3, 0, i), flip=True).flip for i in range(1000)]
    ) == pytest.approx(0.5, abs=0.05)


def test_one_augmentation_leaves_the_numbers_of_the_others():
    """Each alone does the same as beside those that do something else."""
    example = painted((100, 140), [[20, 10, 90, 70]])
    for key in itertools.product((0,), (3,), (0, 1), range(20)):
        alone = augmented(example, key, scale_jitter=(0.5, 2.0))
        beside = augmented(example, key, scale_jitter=(0.5, 2.0), flip=True, hue=0.5, mosaic=1e-12)
        np.testing.assert_array_equal(alone.image, beside.image)
        np.testing.assert_array_equal(alone.boxes, beside.boxes)
        assert alone.flip is None and alone.color is None
        assert beside.flip == augmented(example, key, flip=True).flip
        grey = example._replace(image=np.full_like(example.image, 90))
        colors = [
            augmented(grey, key, contrast=0.5, **fields).color
            for fields in ({}, {"scale_jitter": (0.5, 2.0)}, {"crop": (0.5, 1.0)})
        ]
        np.testing.assert_array_equal(colors, [colors[0]] * 3)


def test_switched_off_the_example_is_only_resized():
    image = np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8)
    example = painted((100, 140), [[20, 10, 90, 70]])._replace(image=image)
    for key in itertools.product((0,), (3,), (0,), range(10)):
        result, plain = augmented(example, key), resize(example, (96, 134))
        for ours, wanted in zip(result, plain, strict=True):
            np.testing.assert_array_equal(ours, wanted)
        gentle = augmented(example, key, brightness=0.2).color
        assert np.abs(gentle - IDENTITY_COLOR).max() <= 0.2 + 1e-6


@quick
@hypothesis.given(sides, sides, keys, st.sampled_from(list(KINDS)), st.booleans())
def test_a_view_lies_in_its_image_and_fits_every_canvas_the_image_may_meet(
    height, width, key, kind, square
):
    config = AugmentationConfig(**KINDS[kind])
    settings = dataclasses.replace(SMALL, max_side=96) if square else SMALL
    view = draw_view((height, width), draw(key), settings, config)
    assert 0 <= view.top < view.top + view.height <= height
    assert 0 <= view.left < view.left + view.width <= width
    assert min(view.size) >= 1
    (fitted,) = fitted_sizes([(height, width)], settings)
    for canvas in canvases(settings):
        if (fitted <= canvas).all():
            assert view.size[0] <= canvas[0] and view.size[1] <= canvas[1]


@quick
@hypothesis.given(sides, sides, keys, st.sampled_from(["flip", "scales", "crop"]))
def test_canvases_cut_nothing_off_that_the_augmentation_does_not(height, width, key, kind):
    """Without scale jitter all of the crop's window is seen, of the window's proportions."""
    config, draws = AugmentationConfig(**KINDS[kind]), draw(key)
    view = draw_view((height, width), draws, SMALL, config)
    low, high = config.crop
    for side, number, part in (
        (height, draws.crop_height, view.height),
        (width, draws.crop_width, view.width),
    ):
        assert part == max(1, round(side * (low + (high - low) * number)))
    zoom = [shown / part for shown, part in zip(view.size, (view.height, view.width), strict=True)]
    slack = [1 / part for part in (view.height, view.width)]
    assert abs(zoom[0] - zoom[1]) <= max(slack) + 1e-9


def test_windows_lie_anywhere_in_the_image():
    """Half the height and width of the image, then half of that, from anywhere in it."""
    config = AugmentationConfig(crop=(0.5, 0.5), scale_jitter=(2.0, 2.0))
    square = PipelineConfig(min_side=96, max_side=96)
    draws = [draw((0, 3, 0, index)) for index in range(1000)]
    views = [draw_view((400, 800), numbers, square, config) for numbers in draws]
    # 200 x 400 becomes 48 x 96, doubled 96 x 192, of which 96 x 96 is shown.
    assert {view[2:] for view in views} == {(200, 200, (96, 96))}
    np.testing.assert_allclose([v.top for v in views], [200 * d.crop_top for d in draws], atol=1)
    wanted = [400 * d.crop_left + 200 * d.left for d in draws]
    np.testing.assert_allclose([v.left for v in views], wanted, atol=2)


def test_images_of_a_mosaic_are_drawn_apart():
    examples = [painted((90, 90), [[0, 0, 90, 90]], [label]) for label in range(4)]
    result = mosaic_of(examples, (0, 3, 0, 1), scale_jitter=(0.1, 0.3))
    assert len({tuple(side) for side in (result.boxes[:, 2:] - result.boxes[:, :2])}) == 4


def test_scales_are_drawn_evenly_and_the_canvas_holds_the_largest():
    config = AugmentationConfig(scales=(640, 672, 704, 736, 768, 800))
    settings = with_largest_scale(PipelineConfig(min_side=600), config)
    assert canvases(settings) == canvases(PipelineConfig())
    keys = ((0, 3, 0, index) for index in range(1200))
    found = [draw_view((480, 640), draw(key), settings, config).size for key in keys]
    counts = {size: found.count(size) for size in set(found)}
    assert set(counts) == {(s, int(s * 640 / 480 + 0.5)) for s in config.scales}
    assert min(counts.values()) > 150 and max(counts.values()) < 250


def test_large_scale_jitter_is_uniform_from_a_tenth_to_twice_the_square():
    config = AugmentationConfig(scale_jitter=(0.1, 2.0))
    settings = PipelineConfig(min_side=1024, max_side=1024)
    keys = [(0, 3, 0, index) for index in range(1500)]
    views = [draw_view((480, 640), draw(key), settings, config) for key in keys]
    scales = np.array([view.size[1] / view.width * 640 / 1024 for view in views])
    assert 0.1 <= scales.min() < 0.11 and 1.98 < scales.max() <= 2.01
    np.testing.assert_allclose(np.histogram(scales, 4, (0.1, 2.0))[0] / 1500, 0.25, atol=0.04)
    for view, scale in zip(views, scales, strict=True):
        # 480 x 640 in 1024 x 1024 is 768 x 1024: beyond that the window is cut.
        assert view.size[1] == pytest.approx(min(1024, 1024 * scale), abs=1)
        assert view.size[0] == pytest.approx(min(1024, 768 * scale), abs=2)


def test_cropping_drops_what_it_hides():
    """A box of which .16 is seen goes at .25 and stays at .1."""
    example = painted((100, 100), [[0, 0, 100, 100]])
    for share, kept in ((0.25, False), (0.1, True)):
        results = [
            augmented(example, (0, 3, 0, i), crop=(0.4, 0.4), min_visible_share=share)
            for i in range(10)
        ]
        assert all((len(result.boxes) == 1) == kept for result in results)
    assert where_painted(results[0].image, 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (700, 1), (2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_images_pass(size, kind):
    example = painted(size, [[0, 0, size[1], size[0]]])
    for place in range(8):
        for chance in (0.0, 1.0):
            result = augmented(example, (0, 3, 0, place), mosaic=chance, **KINDS[kind])
            limit = np.array([result.image.shape[1], result.image.shape[0]] * 2)
            assert (result.boxes >= 0).all() and (result.boxes <= limit).all()
            assert np.isfinite(result.areas).all()


def test_images_without_boxes_pass():
    empty = painted((60, 80), [])
    for kind in KINDS.values():
        for chance in (0.0, 1.0):
            result = augmented(empty, (0, 3, 0, 1), mosaic=chance, **kind)
            assert result.boxes.shape == (0, 4) and result.areas.shape == (0,)
            assert result.boxes.dtype == np.float32 and result.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"scale_jitter": (2.0, 1.0)},
            r"scale_jitter: \(2.0, 1.0\) must be \(low, high\) with 0 < low",
        ),
        ({"scale_jitter": (0.0, 1.0)}, "scale_jitter"),
        (
            {"crop": (0.5, 1.5)},
            r"crop: \(0.5, 1.5\) must be \(low, high\) with 0 < low <= high <= 1",
        ),
        ({"mosaic": 1.5}, "mosaic: 1.5 must be from 0 to 1"),
        ({"mixup": -0.5}, "mixup: -0.5 must be from 0 to 1"),
        ({"close_mosaic": -1.0}, "close_mosaic: -1.0 must be at least 0 epochs"),
        ({"hue": 0.6}, "hue: 0.6 must be from 0 to 0.5"),
        ({"brightness": -0.1}, "brightness: -0.1 must be from 0 to 1"),
        ({"min_visible_share": 2.0}, "min_visible_share"),
        ({"scales": (0, 800)}, "scales"),
    ],
)
def test_impossible_settings_are_named(fields, says):
    with pytest.raises(ValueError, match=f"augmentation.{says}"):
        AugmentationConfig(**fields)


def test_a_scale_beyond_the_longest_side_is_named():
    config = AugmentationConfig(scales=(640, 800))
    with pytest.raises(ValueError, match=r"augmentation.scales: .* at most pipeline.max_side, 700"):
        with_largest_scale(PipelineConfig(min_side=600, max_side=700), config)


def test_a_window_may_lie_at_every_place():
    """Half of an image of 4 x 4 has three places in each direction, the first and last included."""
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, 2)
    settings = PipelineConfig(min_side=2, max_side=2, pad_multiple=2)
    corners = {
        int(
            augmented(without_objects(image), (0, 0, 0, seed), settings, crop=(0.5, 0.5)).image[
                0, 0, 0
            ]
        )
        for seed in range(200)
    }
    assert corners == {4 * row + column for row in range(3) for column in range(3)}


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation"])
def test_color_factors_are_drawn_evenly_from_both_sides_of_one(field):
    """The matrix multiplies grey by brightness and contrast, and a colour without luma by the
    saturation."""
    example = without_objects(np.zeros((64, 64, 3), np.uint8))
    color = [1, -0.299 / 0.587, 0] if field == "saturation" else [1, 1, 1]
    factors = np.array(
        [
            (augmented(example, (0, 0, 0, seed), **{field: 0.4}).color[:, :3] @ color)[0]
            for seed in range(300)
        ]
    )
    assert 0.6 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4
    assert abs(factors.mean() - 1) < 0.04 and abs(np.mean(factors < 1) - 0.5) < 0.1
