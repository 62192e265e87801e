"""Boxes: golden values from torchvision, the coder's round trip, overlaps as a geometry."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinanet_jax.core import box_coder, boxes

FLAT = np.array([[0, 0, 0, 0], [5, 5, 5, 9], [5, 5, 9, 5], [1e-3, 0, 2e-3, 1e-3]], np.float32)


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "units.npz") as units:
        return {key: units[key] for key in units.files if key.startswith(("boxes/", "giou/"))}


def _keys(golden, pattern):
    """(key, the numbers in it) of the golden arrays whose name has the pattern."""
    found = [(key, re.fullmatch(pattern, key)) for key in golden]
    assert any(match for _, match in found), f"no golden array is named {pattern}"
    return [(key, [int(n) for n in match.groups()]) for key, match in found if match]


def corners(minimum=1.0, shape=(6,)):
    """Boxes at least `minimum` wide and high, as hypothesis draws them."""
    place = hnp.arrays(np.float32, (*shape, 2), elements=st.floats(-300, 300, width=32))
    side = hnp.arrays(np.float32, (*shape, 2), elements=st.floats(minimum, 500, width=32))
    return st.builds(lambda p, s: np.concatenate([p, p + s], axis=-1), place, side)


# Golden values: torchvision's box coder, clip, resize, IoU and generalized IoU loss.


@pytest.mark.parametrize("name, weights", [("w1", (1, 1, 1, 1)), ("w10", (10, 10, 5, 5))])
def test_coder_equals_torchvision(golden, name, weights):
    anchors = golden["boxes/proposals"]
    encoded = box_coder.encode(anchors, golden["boxes/reference"], weights)
    decoded = box_coder.decode(anchors, golden["boxes/codes"], weights=weights)
    np.testing.assert_allclose(encoded, golden[f"boxes/{name}/encoded"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(decoded, golden[f"boxes/{name}/decoded"], rtol=1e-5, atol=1e-3)


def test_clip_and_scale_equal_torchvision(golden):
    for key, size in _keys(golden, r"boxes/clipped_(\d+)x(\d+)"):
        clipped = boxes.clip(golden["boxes/w1/decoded"], tuple(size))
        np.testing.assert_array_equal(clipped, golden[key])
    for key, (h, w, new_h, new_w) in _keys(golden, r"boxes/resized_(\d+)x(\d+)_to_(\d+)x(\d+)"):
        resized = boxes.scale(golden["boxes/reference"], (new_h / h, new_w / w))
        np.testing.assert_allclose(resized, golden[key], rtol=1e-6, atol=1e-5)


def test_iou_equals_torchvision(golden):
    for key, (n, m) in _keys(golden, r"boxes/iou_(\d+)x(\d+)"):
        iou = boxes.pairwise_iou(golden["boxes/reference"][:n], golden["boxes/proposals"][:m])
        np.testing.assert_allclose(iou, golden[key], rtol=1e-6, atol=1e-6)


def test_generalized_iou_and_gradient_equal_torchvision(golden):
    boxes1, boxes2 = golden["giou/boxes1"], golden["giou/boxes2"]
    loss = 1 - boxes.generalized_iou(boxes1, boxes2)
    grad = jax.jit(jax.grad(lambda b: jnp.sum(1 - boxes.generalized_iou(b, boxes2))))(boxes1)
    # The reference's own float32 run differs from its float64 run by the yardstick.
    yardstick = np.abs(golden["giou/loss"] - golden["giou/loss64"]).max()
    np.testing.assert_allclose(loss, golden["giou/loss64"], rtol=0, atol=5 * yardstick)
    np.testing.assert_allclose(grad, golden["giou/grad1"], rtol=1e-4, atol=1e-6)


# Arithmetic by hand.


def test_values_by_hand():
    a = np.array([[0, 0, 4, 2]], np.float32)
    b = np.array([[2, 0, 6, 4], [8, 0, 9, 2]], np.float32)
    # Areas 8 and 16, common 2x2: 4 / (8 + 16 - 4).
    np.testing.assert_allclose(boxes.pairwise_iou(a, b), [[0.2, 0]], rtol=1e-6)
    np.testing.assert_allclose(boxes.pairwise_ioa(a, b), [[0.5, 0]])
    # Hulls 6x4 and 9x2, unions 20 and 10: .2 - 4/24 and 0 - 8/18.
    giou = boxes.generalized_iou(np.repeat(a, 2, axis=0), b)
    np.testing.assert_allclose(giou, [0.2 - 4 / 24, -8 / 18], rtol=1e-6)
    # Centres (2, 1) and (4, 2), sides (4, 2) and (4, 4).
    np.testing.assert_allclose(box_coder.encode(a[0], b[0]), [0.5, 0.5, 0, np.log(2)], rtol=1e-6)
    np.testing.assert_array_equal(boxes.area(b), [16, 2])
    np.testing.assert_array_equal(boxes.scale(a, (0.5, 2)), [[0, 0, 8, 1]])


def test_decode_bounds_the_side():
    anchor = np.array([0, 0, 16, 16], np.float32)
    decoded = box_coder.decode(anchor, np.array([0, 0, 50, -50], np.float32))
    np.testing.assert_allclose(decoded, [8 - 500, 8, 8 + 500, 8], rtol=1e-5)
    assert decoded[2] - decoded[0] == pytest.approx(16 * 62.5, rel=1e-5)


def test_decode_widens_narrow_deltas():
    deltas = jnp.array([0.1, 0.2, 0.3, 0.4], jnp.bfloat16)
    decoded = box_coder.decode(np.array([0, 0, 512, 512], np.float32), deltas)
    assert decoded.dtype == jnp.float32
    expected = box_coder.decode(
        np.array([0, 0, 512, 512], np.float32), np.asarray(deltas, np.float32)
    )
    np.testing.assert_array_equal(decoded, expected)


def test_clip_takes_a_size_per_image():
    batch = np.tile(np.array([-5, -5, 500, 500], np.float32), (2, 3, 1))
    sizes = np.array([[100, 200], [300, 400]], np.int32)
    clipped = boxes.clip(batch, sizes[:, None])
    np.testing.assert_array_equal(clipped[0], np.tile([0, 0, 200, 100], (3, 1)))
    np.testing.assert_array_equal(clipped[1], np.tile([0, 0, 400, 300], (3, 1)))
    np.testing.assert_array_equal(jax.vmap(boxes.clip)(batch, sizes), clipped)


def test_anchors_broadcast_over_a_batch():
    anchors = np.array([[0, 0, 8, 8], [4, 4, 20, 12]], np.float32)
    deltas = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 2, 4)
    decoded = box_coder.decode(anchors, deltas)
    assert decoded.shape == (3, 2, 4)
    np.testing.assert_allclose(decoded[1], box_coder.decode(anchors, deltas[1]), rtol=1e-6)
    np.testing.assert_allclose(box_coder.encode(anchors, decoded), deltas, rtol=1e-4, atol=1e-5)


# Properties.

_pairwise_iou, _pairwise_ioa, _generalized_iou = map(
    jax.jit, (boxes.pairwise_iou, boxes.pairwise_ioa, boxes.generalized_iou)
)


@jax.jit
def _there_and_back(anchors, targets):
    return box_coder.decode(anchors, box_coder.encode(anchors, targets), max_log_scale=10)


@settings(deadline=None, max_examples=50)
@given(corners(), corners())
def test_decode_inverts_encode(anchors, targets):
    decoded = _there_and_back(anchors, targets)
    np.testing.assert_allclose(decoded, targets, rtol=1e-4, atol=2e-2)


def test_sides_below_a_pixel_are_encoded_exactly():
    anchors = np.array([[0, 0, 8, 8], [3, 3, 3.25, 3.5]], np.float32)
    targets = np.array([[4, 4, 4.0625, 4.5], [1, 1, 1.125, 1.25]], np.float32)
    wanted = np.log([[0.0625 / 8, 0.5 / 8], [0.125 / 0.25, 0.25 / 0.5]])
    np.testing.assert_allclose(box_coder.encode(anchors, targets)[:, 2:], wanted, rtol=1e-5)
    np.testing.assert_allclose(_there_and_back(anchors, targets), targets, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(corners(0.0), corners(0.0, (4,)))
def test_overlaps_are_a_geometry(boxes1, boxes2):
    iou = np.asarray(_pairwise_iou(boxes1, boxes2))
    np.testing.assert_allclose(iou, np.asarray(_pairwise_iou(boxes2, boxes1)).T, rtol=1e-6)
    ioa = np.asarray(_pairwise_ioa(boxes1, boxes2))
    giou = np.asarray(_generalized_iou(boxes1[:4], boxes2))
    assert iou.min() >= 0 and iou.max() <= 1 + 1e-5
    assert ioa.min() >= 0 and ioa.max() <= 1 + 1e-3
    assert (iou <= ioa + 1e-5).all()
    assert giou.min() >= -1 - 1e-5 and (giou <= np.diagonal(iou) + 1e-5).all()


@settings(deadline=None, max_examples=30)
@given(corners())
def test_a_box_overlaps_itself_wholly(some):
    assert np.asarray(jnp.diagonal(_pairwise_iou(some, some))) == pytest.approx(1)
    assert np.asarray(_generalized_iou(some, some)) == pytest.approx(1)


@pytest.mark.parametrize(
    "function",
    [
        lambda b: boxes.pairwise_iou(b, FLAT),
        lambda b: boxes.pairwise_ioa(b, FLAT),
        lambda b: boxes.pairwise_ioa(FLAT, b),
        lambda b: boxes.generalized_iou(b, FLAT),
        lambda b: boxes.generalized_iou(b, FLAT[::-1]),
        lambda b: boxes.complete_iou(b, FLAT),
        lambda b: boxes.complete_iou(b, FLAT[::-1]),
        lambda b: box_coder.encode(b, FLAT[::-1]),
        lambda b: box_coder.encode(FLAT[::-1], b),
        lambda b: box_coder.decode(FLAT, b * 1000),
        lambda b: boxes.clip(b, (4, 4)),
        boxes.area,
    ],
)
def test_degenerate_boxes_stay_finite(function):
    run = jax.jit(jax.value_and_grad(lambda b: jnp.sum(function(b))))
    value, gradient = run(jnp.asarray(FLAT))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("function", [boxes.pairwise_iou, boxes.pairwise_ioa])
def test_overlaps_of_pairs_have_no_axis_of_coordinates(function):
    """Arrays [n m 2] or [n m 4] would fill the tiles of a TPU to a small part."""
    program = jax.make_jaxpr(function)(np.zeros((7, 4), np.float32), np.zeros((5, 4), np.float32))
    sizes = [v.aval.size for equation in program.eqns for v in equation.outvars]
    assert max(sizes) == 7 * 5


def test_empty_sets():
    none = np.zeros((0, 4), np.float32)
    assert boxes.pairwise_iou(FLAT, none).shape == (4, 0)
    assert boxes.pairwise_ioa(none, FLAT).shape == (0, 4)
    assert box_coder.encode(none, none).shape == box_coder.decode(none, none).shape == (0, 4)


def test_jit_equals_eager():
    rng = np.random.default_rng(0)
    low, side = rng.uniform(0, 100, (2, 50, 2))
    some = np.concatenate([low, low + side], axis=1).astype(np.float32)
    other = some[::-1].copy()
    for function in (boxes.generalized_iou, box_coder.encode, box_coder.decode):
        argument = other / 100 if function is box_coder.decode else other
        np.testing.assert_allclose(
            jax.jit(function)(some, argument), function(some, argument), rtol=1e-4, atol=1e-5
        )
