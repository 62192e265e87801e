"""Flip and colours on the device: against painted boxes, against Pillow, and as identities."""

import colorsys

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from painted import assert_boxes_fit, painted, painted_examples
from PIL import Image, ImageEnhance

from retinanet_jax.core.layers import PixelConfig, normalize
from retinanet_jax.data.pipeline.batch import IDENTITY_COLOR, Batch, collate, without_objects
from retinanet_jax.data.pipeline.color import color_matrix
from retinanet_jax.training.device_augmentation import augment_on_device

CANVAS = (144, 160)
on_device = jax.jit(augment_on_device)
quick = hypothesis.settings(max_examples=30, deadline=None)


def batch_of(*examples) -> Batch:
    return collate(examples, CANVAS, 5, len(examples)).batch


def assert_equal(ours: Batch, theirs: Batch) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@quick
@hypothesis.given(painted_examples(), painted_examples())
def test_only_marked_images_are_mirrored_and_their_boxes_fit(one, two):
    before = batch_of(one._replace(flip=True), two._replace(flip=False))
    after = jax.device_get(on_device(before))
    height, width = one.image.shape[:2]
    np.testing.assert_array_equal(after.images[0, :height, :width], one.image[:, ::-1])
    assert not after.images[0, height:].any() and not after.images[0, :, width:].any()
    np.testing.assert_array_equal(after.images[1], before.images[1])
    np.testing.assert_array_equal(after.gt_boxes[1], before.gt_boxes[1])
    assert_boxes_fit(after.images[0], after.gt_boxes[0], after.gt_labels[0], tolerance=0)
    np.testing.assert_array_equal(after.gt_boxes[0, 3:], 0)
    assert after.flip is None and after.color is None


@quick
@hypothesis.given(painted_examples(), painted_examples())
def test_flipping_twice_changes_nothing(one, two):
    flips = np.array([True, False])
    before = batch_of(one, two)
    once = on_device(before._replace(flip=flips))
    assert_equal(on_device(once._replace(flip=flips)), before)


def test_extreme_images_are_mirrored():
    dot, line = painted((1, 1), [[0, 0, 1, 1]]), painted((1, 160), [[0, 0, 3, 1]])
    empty = painted((144, 160), [])
    batch = batch_of(*(example._replace(flip=True) for example in (dot, line, empty)))
    after = jax.device_get(on_device(batch))
    np.testing.assert_array_equal(after.gt_boxes[:2, 0], [[0, 0, 1, 1], [157, 0, 160, 1]])
    assert after.images[0].any() and after.images[1, 0, 157:].any()
    assert (after.images[0] == batch.images[0]).all() and not after.images[1, 0, :157].any()
    assert not after.gt_boxes[2].any()


def random_batch(seed: int = 0, rows: int = 4) -> Batch:
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(rows):
        size = tuple(rng.integers(20, 140, 2).tolist())
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        boxes = np.sort(rng.uniform(0, 1, (2, 2, 2)) * size[::-1], axis=1).reshape(2, 4)
        color = rng.normal(0, 0.4, (3, 4)).astype(np.float32) + IDENTITY_COLOR
        flip = bool(rng.random() < 0.5)
        example = painted(size, boxes)._replace(image=image, flip=flip, color=color)
        examples.append(example)
    return batch_of(*examples)


def test_compiled_equals_eager():
    batch = random_batch()
    assert_equal(on_device(batch), augment_on_device(batch))


def test_a_batch_without_augmentation_comes_back_as_it_is():
    batch = random_batch()._replace(flip=None, color=None)
    assert augment_on_device(batch) == batch
    assert not jax.make_jaxpr(augment_on_device)(batch).jaxpr.eqns


def test_padding_stays_zero_before_and_after_normalising():
    batch = random_batch()
    batch = batch._replace(color=batch.color + np.float32([0, 0, 0, 50]))
    after = on_device(batch)
    normal = normalize(after.images, PixelConfig(), after.image_sizes)
    for row, (height, width) in enumerate(batch.image_sizes.astype(int)):
        for images in (after.images, normal):
            assert np.asarray(images[row, :height, :width]).any()
            assert not np.asarray(images[row, height:]).any()
            assert not np.asarray(images[row, :, width:]).any()


def mapped(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    example = painted(image.shape[:2], [])._replace(image=image, color=matrix)
    return np.asarray(on_device(batch_of(example)).images[0, : image.shape[0], : image.shape[1]])


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """Smooth colours of all kinds, few of them at the ends of the scale."""
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(40, 200, (6, 8, 3), np.uint8))
    return np.asarray(small.resize((80, 60), Image.Resampling.BILINEAR))


NEUTRAL = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
unit = st.floats(0, 2)


def test_colours_of_no_strength_are_exactly_the_identity(photograph):
    matrix = color_matrix(photograph.mean((0, 1)), **NEUTRAL)
    np.testing.assert_array_equal(matrix, IDENTITY_COLOR)
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    np.testing.assert_array_equal(mapped(noise, matrix), noise)


@pytest.mark.parametrize(
    ("field", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.4, 3.0])
def test_factors_are_those_of_pillow(photograph, field, enhance, factor):
    matrix = color_matrix(photograph.mean((0, 1)), **NEUTRAL | {field: factor})
    wanted = np.asarray(enhance(Image.fromarray(photograph)).enhance(factor)).astype(int)
    found = mapped(photograph, matrix).astype(int)
    # Pillow rounds the luma to integers, which the factor magnifies, and cuts where we round.
    assert np.abs(found - wanted).max() <= 1 + factor


def test_hue_turns_red_to_green_to_blue_and_keeps_the_luma(photograph):
    red = np.array([200.0, 60, 60])
    for turns, brightest in ((1 / 3, 1), (2 / 3, 2), (-1 / 3, 2)):
        matrix = color_matrix(red, **NEUTRAL | {"hue": turns})
        turned = matrix[:, :3] @ red
        assert turned.argmax() == brightest
        # colorsys has other weights of its own, of two digits.
        luma = [colorsys.rgb_to_yiq(*color)[0] for color in (red, turned)]
        assert luma[0] == pytest.approx(luma[1], abs=2)
    half = color_matrix(red, **NEUTRAL | {"hue": 0.5})[:, :3]
    np.testing.assert_allclose(half @ half, np.eye(3), atol=1e-5)
    full = color_matrix(red, **NEUTRAL | {"hue": 1.0})
    np.testing.assert_allclose(full, IDENTITY_COLOR, atol=1e-6)


@quick
@hypothesis.given(unit, unit, unit, st.floats(-0.5, 0.5))
def test_the_four_commute(brightness, contrast, saturation, hue):
    """One map by all four is that of each after another, the first one last."""
    mean = np.array([90.0, 120.0, 30.0])
    fields = {"hue": hue, "saturation": saturation, "contrast": contrast, "brightness": brightness}
    for order in (list(fields), list(fields)[::-1]):
        whole, now = np.eye(4), mean
        for name in order:
            step = np.vstack([color_matrix(now, **NEUTRAL | {name: fields[name]}), [0, 0, 0, 1]])
            whole = step @ whole
            now = (whole @ [*mean, 1])[:3]
        np.testing.assert_allclose(color_matrix(mean, **fields), whole[:3], atol=2e-3)


def test_colours_are_rounded_to_the_nearest_value():
    """10 * 1.06 = 10.6 and 20 * 1.02 = 20.4."""
    image = np.full((4, 4, 3), (10, 20, 0), np.uint8)
    color = np.zeros((3, 4), np.float32)
    color[0, 0], color[1, 1] = 1.06, 1.02
    example = without_objects(image)._replace(color=color)
    found = jax.device_get(on_device(collate([example], (4, 4), 1, 1).batch))
    np.testing.assert_array_equal(found.images[0, 0, 0], [11, 20, 0])
