"""Losses beside the focal one: float64 formulas, torchvision's numbers, identities, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retinanet_jax import core
from retinanet_jax.core import boxes
from retinanet_jax.core.box_losses import BOX_LOSSES, box_losses
from retinanet_jax.core.focal import FocalParams, class_losses
from retinanet_jax.core.targets import IGNORE, NEGATIVE

LOGITS = np.linspace(-9, 9, 61)
EXTREMES = np.array([-1000, -200, -104, -88, -20, 0, 20, 88, 104, 200, 1000], np.float32)


@functools.partial(jax.jit, static_argnums=0)
def value_and_slope(function, x, y):
    """function(x, y) of every element, and the derivative by x."""
    value, pullback = jax.vjp(lambda x: function(x, y), x)
    return value, pullback(jnp.ones_like(value))[0]


# Formulas as they stand in the papers, in float64.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def entropy(x, y):
    return -y * np.log(sigmoid(x)) - (1 - y) * np.log(sigmoid(-x))


def star(x, y, gamma, beta, alpha):
    signed, weight = np.where(y > 0, x, -x), np.where(y > 0, alpha, 1 - alpha)
    return -weight * np.log(sigmoid(gamma * signed + beta)) / gamma


def quality_focal(x, y, gamma):
    return np.abs(y - sigmoid(x)) ** gamma * entropy(x, y)


def varifocal(x, y, gamma, alpha):
    return np.where(y > 0, y * entropy(x, y), alpha * sigmoid(x) ** gamma * entropy(x, 0))


CLASS_CASES = {
    "star 2 1": (
        lambda x, y: core.focal_loss_star(x, y, gamma=2.0, beta=1.0, alpha=0.25),
        lambda x, y: star(x, y, 2, 1, 0.25),
        (0.0, 1.0),
    ),
    "star 4 0": (
        lambda x, y: core.focal_loss_star(x, y, gamma=4.0, beta=0.0, alpha=0.5),
        lambda x, y: star(x, y, 4, 0, 0.5),
        (0.0, 1.0),
    ),
    "quality 2": (
        lambda x, y: core.quality_focal_loss(x, y, gamma=2.0),
        lambda x, y: quality_focal(x, y, 2),
        (0.0, 0.37, 0.8, 1.0),
    ),
    "quality 1.5": (
        lambda x, y: core.quality_focal_loss(x, y, gamma=1.5),
        lambda x, y: quality_focal(x, y, 1.5),
        (0.0, 0.37, 0.8, 1.0),
    ),
    "varifocal": (
        lambda x, y: core.varifocal_loss(x, y, gamma=2.0, alpha=0.75),
        lambda x, y: varifocal(x, y, 2, 0.75),
        (0.0, 0.37, 0.8, 1.0),
    ),
}


@pytest.mark.parametrize("name", list(CLASS_CASES))
def test_class_losses_and_slopes_equal_their_formulas(name):
    ours, formula, targets = CLASS_CASES[name]
    x, y = (a.ravel() for a in np.meshgrid(LOGITS, targets))
    value, gradient = value_and_slope(ours, np.float32(x), np.float32(y))
    np.testing.assert_allclose(value, formula(x, y), rtol=2e-5, atol=1e-7)
    step = 1e-5
    slope = (formula(x + step, y) - formula(x - step, y)) / (2 * step)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", list(CLASS_CASES))
def test_class_losses_are_finite_at_extreme_logits(name):
    ours, _, targets = CLASS_CASES[name]
    x, y = (a.ravel() for a in np.meshgrid(EXTREMES, np.float32(targets)))
    value, gradient = value_and_slope(ours, x, y)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    assert value.min() >= 0 and value.max() > 200


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_quality_focal_is_finite_where_the_prediction_is_right(gamma):
    loss = functools.partial(core.quality_focal_loss, gamma=gamma)
    value, gradient = value_and_slope(loss, np.zeros(1, np.float32), np.full(1, 0.5, np.float32))
    assert np.isfinite(value) and np.isfinite(gradient)
    assert value == pytest.approx(np.log(2) if gamma == 0 else 0)


def test_special_cases_are_the_losses_they_generalise():
    x = np.float32(np.concatenate([LOGITS, EXTREMES]))
    for y in (np.zeros_like(x), np.ones_like(x)):
        focal = core.focal_loss(x, y, gamma=2.0)
        entropy = core.focal_loss(x, y, gamma=0.0)
        np.testing.assert_allclose(
            core.quality_focal_loss(x, y, gamma=2.0), focal, rtol=1e-5, atol=1e-9
        )
        np.testing.assert_allclose(core.quality_focal_loss(x, y, gamma=0.0), entropy, rtol=1e-6)
        np.testing.assert_allclose(
            core.focal_loss_star(x, y, gamma=1.0, beta=0.0), entropy, rtol=1e-6
        )
        np.testing.assert_allclose(core.varifocal_loss(x, y, gamma=0.0), entropy, rtol=1e-6)
    # Negatives of varifocal are those of the focal loss with weight alpha instead of 1 - alpha.
    np.testing.assert_allclose(
        core.varifocal_loss(x, np.zeros_like(x), gamma=2.0, alpha=0.75),
        core.focal_loss(x, np.zeros_like(x), gamma=2.0, alpha=0.25),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["focal", "cross_entropy", "focal_star"])
def test_a_config_chooses_the_loss_of_labels(name):
    logits = np.random.default_rng(0).normal(0, 3, (2, 4, 5)).astype(np.float32)
    labels = np.array([[0, 4, NEGATIVE, IGNORE], [IGNORE, 2, 2, NEGATIVE]], np.int32)
    result = class_losses(logits, labels, name, FocalParams(gamma=2.0, alpha=0.25, star_beta=1.0))
    y = np.asarray(jax.nn.one_hot(labels, 5))
    weight = np.where(y > 0, 0.25, 0.75)
    x = np.float64(logits)
    expected = {
        "focal": weight * quality_focal(x, y, 2),
        "cross_entropy": weight * entropy(x, y),
        "focal_star": star(x, y, 2, 1, 0.25),
    }[name].sum(-1)
    np.testing.assert_allclose(result, np.where(labels == IGNORE, 0, expected), rtol=1e-5)


@pytest.mark.parametrize("name", ["quality_focal", "varifocal"])
def test_quality_is_the_target_of_the_label_alone(name):
    logits = np.random.default_rng(1).normal(0, 3, (1, 3, 4)).astype(np.float32)
    labels = np.array([[2, NEGATIVE, IGNORE]], np.int32)
    quality = np.float32([[0.6, 0.9, 0.9]])
    result = class_losses(logits, labels, name, FocalParams(gamma=2.0, alpha=0.75), quality)
    y = np.float64([[[0, 0, 0.6, 0], [0, 0, 0, 0], [0, 0, 0, 0]]])
    x = np.float64(logits)
    expected = quality_focal(x, y, 2) if name == "quality_focal" else varifocal(x, y, 2, 0.75)
    np.testing.assert_allclose(result, [[*expected.sum(-1)[0, :2], 0]], rtol=1e-5)


# Boxes. Values and gradients by torchvision 0.28 in float64 (torchvision.ops.*_box_iou_loss).

PREDICTED = np.float32([[0, 0, 4, 2], [0, 0, 4, 2], [1, 1, 5, 9], [10, 20, 30, 25]])
WANTED = np.float32([[2, 0, 6, 4], [5, 5, 7, 9], [0, 2, 6, 6], [12, 18, 22, 40]])
TORCHVISION = {
    "giou": (
        [0.96666667, 1.74603174, 0.76666667, 1.20117845],
        [
            [-0.07555556, 0.04083333, -0.1, -0.16333333],
            [-0.00453515, 0.03527337, -0.03174603, -0.06349206],
            [0.14333333, -0.06083333, -0.14333333, 0.06083333],
            [-0.02274754, 0.0529056, 0.02274754, -0.0529056],
        ],
    ),
    "diou": (
        [0.89615385, 1.4, 0.61, 0.87278993],
        [
            [-0.03627219, 0.00816568, -0.13846154, -0.09923077],
            [0.01230769, 0.00923077, -0.03076923, -0.04615385],
            [0.06, -0.0284, -0.06, 0.0484],
            [0.00258762, 0.02282539, 0.00419971, -0.03753127],
        ],
    ),
    "ciou": (
        [0.89824463, 1.4241179, 0.62682256, 0.9667771],
        [
            [-0.03757182, 0.01076493, -0.13716191, -0.10183002],
            [0.00481185, 0.02422245, -0.02327339, -0.06114552],
            [0.06648086, -0.03164043, -0.06648086, 0.05164043],
            [0.00012822, 0.03266296, 0.00665911, -0.04736884],
        ],
    ),
}
OVERLAPS = tuple(map(jax.jit, (boxes.iou, boxes.distance_iou, boxes.complete_iou)))


@pytest.mark.parametrize("name", list(TORCHVISION))
def test_box_losses_equal_torchvision(name):
    value, gradient = value_and_slope(BOX_LOSSES[name], PREDICTED, WANTED)
    values, gradients = TORCHVISION[name]
    np.testing.assert_allclose(value, values, rtol=1e-5)
    gradient = np.array(gradient)
    # The first pair shares an edge (y1): where the hull's corner is either's, a slope is a choice.
    gradient[0, 1], gradients[0][1] = 0, 0
    np.testing.assert_allclose(gradient, gradients, rtol=1e-4, atol=1e-6)


def random_boxes(count, seed):
    low, side = np.random.default_rng(seed).uniform((0, 0), (60, 40), (2, count, 2))
    return np.concatenate([low, low + side + 1], axis=1).astype(np.float32)


def complete_iou(a, b):
    """The paper's formulas in float64, one pair at a time."""
    sides = [max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    iou = sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])
    centres = [((c[0] + c[2]) / 2, (c[1] + c[3]) / 2) for c in (a, b)]
    diagonal = [max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1)]
    distance = iou - np.sum(np.subtract(*centres) ** 2) / np.sum(np.square(diagonal))
    angles = [np.arctan((c[2] - c[0]) / (c[3] - c[1])) for c in (a, b)]
    v = 4 / np.pi**2 * (angles[0] - angles[1]) ** 2
    return iou, distance, distance - v / (1 - iou + v) * v


def test_overlaps_equal_their_formulas():
    some, other = random_boxes(200, 0), random_boxes(200, 1)
    expected = np.array(
        [complete_iou(*pair) for pair in zip(np.float64(some), np.float64(other), strict=True)]
    )
    ours = [f(some, other) for f in OVERLAPS]
    np.testing.assert_allclose(np.stack(ours, axis=1), expected, rtol=1e-4, atol=1e-5)
    pairwise = jax.jit(boxes.pairwise_iou)(some, other)
    np.testing.assert_allclose(ours[0], np.diagonal(pairwise), rtol=1e-6)


def test_overlaps_are_ordered_and_agree_where_nothing_is_to_be_punished():
    some, other = random_boxes(200, 2), random_boxes(200, 3)
    iou, distance, complete = (f(some, other) for f in OVERLAPS)
    assert (complete <= distance + 1e-6).all() and (distance <= iou + 1e-6).all()
    # Around one centre the distance is 0, and with one aspect ratio v is.
    middle = np.float32([[50, 50, 50, 50]])
    half = np.float32([[-8, -4, 8, 4]])
    concentric = middle + half, middle + 1.5 * half
    for function in OVERLAPS:
        np.testing.assert_allclose(function(*concentric), 1 / 1.5**2, rtol=1e-5)
        np.testing.assert_allclose(function(some, some), 1, rtol=1e-5)


@pytest.mark.parametrize("name", list(BOX_LOSSES))
def test_box_losses_have_finite_gradients_everywhere(name):
    degenerate = np.float32(
        [
            [0, 0, 0, 0],
            [3, 3, 3, 3],
            [3, 3, 3, 9],
            [3, 3, 9, 3],
            [5, 5, 2, 2],
            [0, 0, 1e-20, 1e-20],
            [0, 0, 1e4, 1e-4],
            [1, 1, 7, 7],
            [-1e4, -1e4, 1e4, 1e4],
        ]
    )
    a, b = (x.reshape(-1, 4) for x in np.broadcast_arrays(degenerate[:, None], degenerate))
    value, gradient = map(np.asarray, value_and_slope(BOX_LOSSES[name], a, b))
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    upright = ((a[:, 2:] >= a[:, :2]) & (b[:, 2:] >= b[:, :2])).all(axis=1)
    assert value.min() >= -1e-6 and value[upright].max() <= 3


def test_compiled_sums_over_very_many_anchors():
    """jaxlib 0.10.2 compiles some sums of more than 32,768 rows for CPUs into wrong ones."""
    deltas = np.random.default_rng(0).normal(0, 1, (2, 100_000, 4)).astype(np.float32)
    anchors = np.tile(np.float32([10, 20, 50, 80]), (100_000, 1))  # the targets too: all deltas 0
    compiled = jax.jit(lambda deltas: box_losses(deltas, anchors, anchors, "l1", 0.0))
    expected = np.abs(deltas.astype(np.float64)).sum(axis=-1)
    np.testing.assert_allclose(compiled(deltas), expected, rtol=1e-6)


def test_smooth_l1_of_any_beta_and_hubers_loss():
    d = np.linspace(-3, 3, 31, dtype=np.float32)
    for beta in (0.1, 1 / 9, 1.0):
        ours = core.smooth_l1(d, np.zeros_like(d), beta)
        inside = np.abs(d) < beta
        # Huber's, as Keras has it, divided by its delta.
        huber = np.where(inside, 0.5 * d**2, beta * np.abs(d) - 0.5 * beta**2)
        np.testing.assert_allclose(ours, huber / beta, rtol=1e-5, atol=1e-7)
