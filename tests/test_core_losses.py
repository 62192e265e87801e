"""Losses: optax and torchvision as references, identities, extremes, masks and normalisers."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet_jax import core
from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image
from retinanet_jax.core.assignment import assign
from retinanet_jax.core.focal import FocalParams, focal_loss_from_labels
from retinanet_jax.core.focal import focal_loss as focal
from retinanet_jax.core.loss import loss_parts, retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import MatchingConfig
from retinanet_jax.core.targets import IGNORE, NEGATIVE, Targets

GAMMAS = (0.0, 0.1, 0.5, 1.0, 1.7, 2.0, 5.0)
LOGITS = np.linspace(-12, 12, 97, dtype=np.float32)
EXTREMES = np.array([-1000, -200, -104, -88, -20, 0, 20, 88, 104, 200, 1000], np.float32)


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "units.npz") as units:
        kept = ("focal/", "loss/", "post/")
        return {key: units[key] for key in units.files if key.startswith(kept)}


def _value_and_grad(logits, targets, gamma, alpha=None):
    """Focal loss and its derivative by the logits, both per element, as numpy arrays."""
    return jax.tree.map(np.asarray, _traced(logits, targets, gamma, alpha))


@jax.jit
def _traced(logits, targets, gamma, alpha):
    value, pullback = jax.vjp(lambda x: focal(x, targets, gamma=gamma, alpha=alpha), logits)
    return value, pullback(jnp.ones_like(value))[0]


@jax.jit
def _optax_value_and_grad(logits, targets, gamma, alpha):
    value, pullback = jax.vjp(
        lambda x: optax.losses.sigmoid_focal_loss(x, targets, alpha=alpha, gamma=gamma), logits
    )
    return value, pullback(jnp.ones_like(value))[0]


# Focal loss against independent implementations.


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_gamma_zero_is_cross_entropy(target):
    logits = np.concatenate([LOGITS, EXTREMES])
    targets = np.full_like(logits, target)
    value, gradient = _value_and_grad(logits, targets, 0.0)
    np.testing.assert_array_equal(value, optax.sigmoid_binary_cross_entropy(logits, targets))
    expected = jax.grad(lambda x: optax.sigmoid_binary_cross_entropy(x, targets).sum())(logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_equals_optax(gamma, alpha):
    logits = np.concatenate([LOGITS, LOGITS])
    targets = np.repeat([0.0, 1.0], len(LOGITS)).astype(np.float32)
    value, gradient = _value_and_grad(logits, targets, gamma, alpha)

    expected, slope = _optax_value_and_grad(logits, targets, gamma, alpha)
    # optax takes a power of 1 - p_t, which float32 knows to 6e-8: its error, relative to that.
    rtol = 2e-5 + 1.2e-7 * max(gamma, 1) / np.asarray(jax.nn.sigmoid(-np.abs(logits)))
    assert (np.abs(value - expected) <= rtol * np.abs(expected) + 1e-12).all()
    finite = np.isfinite(slope)
    assert finite.sum() > 0.9 * len(logits)
    assert (np.abs(gradient - slope) <= 2 * rtol * np.abs(slope) + 1e-9)[finite].all()


def test_equals_torchvision(golden):
    logits, targets = golden["focal/logits"], golden["focal/targets"]
    checked = 0
    for key in golden:
        found = re.fullmatch(r"focal/g([\d.]+)_a(-?[\d.]+)/loss", key)
        if not found:
            continue
        gamma, alpha = float(found[1]), float(found[2])
        results = _value_and_grad(logits, targets, gamma, None if alpha < 0 else alpha)
        for name, ours in zip(("loss", "grad"), results, strict=True):
            theirs = golden[key.replace("/loss", f"/{name}")]
            exact = golden.get(key.replace("/loss", f"/{name}64"), None)
            if exact is not None:
                # Where a float64 run is given, we are no further from it than their float32 is.
                yardstick = np.abs(theirs - exact).max()
                np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=3 * yardstick)
            finite = np.isfinite(theirs)
            np.testing.assert_allclose(ours[finite], theirs[finite], rtol=2e-5, atol=2e-5)
            assert np.isfinite(ours).all()
        checked += 1
    assert checked


def test_extremes_equal_torchvision_where_it_is_finite(golden):
    logits, targets = golden["focal/extreme_logits"], golden["focal/extreme_targets"]
    for key in golden:
        found = re.fullmatch(r"focal/g([\d.]+)_a(-?[\d.]+)/extreme_loss", key)
        if not found:
            continue
        alpha = float(found[2])
        results = _value_and_grad(logits, targets, float(found[1]), None if alpha < 0 else alpha)
        for name, ours in zip(("loss", "grad"), results, strict=True):
            assert np.isfinite(ours).all(), key
            theirs = golden[key.replace("extreme_loss", f"extreme_{name}")]
            finite = np.isfinite(theirs)
            np.testing.assert_allclose(ours[finite], theirs[finite], rtol=1e-5, atol=1e-6)


# Identities and extremes.


@pytest.mark.parametrize("gamma", GAMMAS)
def test_ratio_to_cross_entropy_is_the_modulating_factor(gamma):
    for target in (0.0, 1.0):
        targets = np.full_like(LOGITS, target)
        ratio = focal(LOGITS, targets, gamma=gamma) / focal(LOGITS, targets, gamma=0.0)
        signed = LOGITS.astype(np.float64) * (2 * target - 1)
        # (1 - p_t)^gamma with 1 - p_t = 1 / (1 + exp(x_t)), in float64.
        np.testing.assert_allclose(ratio, (1 + np.exp(signed)) ** -gamma, rtol=1e-5)


def test_values_by_hand():
    # At logit 0, p = 1/2: loss = alpha_t * (1/2)^2 * log 2.
    zero = np.zeros(2, np.float32)
    loss = focal(zero, np.array([1.0, 0.0]), gamma=2.0, alpha=0.25)
    np.testing.assert_allclose(loss, [0.25 * 0.25 * np.log(2), 0.75 * 0.25 * np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_extreme_logits_are_finite(gamma, target):
    targets = np.full_like(EXTREMES, target)
    value, gradient = _value_and_grad(EXTREMES, targets, gamma, 0.25)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    weight, wrong = (0.25, 0) if target else (0.75, -1)
    assert value[wrong] == pytest.approx(1000 * weight)
    assert abs(gradient[wrong]) == pytest.approx(weight)
    by_gamma = jax.grad(lambda g: focal(EXTREMES, targets, gamma=g, alpha=0.25).sum())(gamma)
    assert np.isfinite(by_gamma)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-1000, 1000, width=32),
    st.floats(0, 8, width=32),
    st.floats(0, 1, width=32),
    st.booleans(),
)
def test_any_parameters_are_finite_and_bounded(logit, gamma, alpha, target):
    values = np.float32(logit), np.float32(target), np.float32(gamma), np.float32(alpha)
    value, gradient = _value_and_grad(*values)
    plain, _ = _value_and_grad(*values[:2], np.float32(0))
    assert 0 <= value <= plain * (1 + 1e-6)
    assert np.isfinite(gradient) and (gradient <= 0 if target else gradient >= 0)


def test_narrow_logits_are_widened():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    targets = np.zeros_like(LOGITS)
    loss = focal(logits, targets, gamma=2.0)
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, focal(logits.astype(jnp.float32), targets, gamma=2.0))


def test_labels_stand_for_one_hot_targets():
    logits = np.random.default_rng(0).normal(0, 3, (2, 4, 5)).astype(np.float32)
    labels = np.array([[0, 4, NEGATIVE, IGNORE], [IGNORE, 2, 2, NEGATIVE]], np.int32)
    result = focal_loss_from_labels(logits, labels, gamma=2.0, alpha=0.25)
    one_hot = np.asarray(jax.nn.one_hot(labels, 5))
    expected = np.sum(focal(logits, one_hot, gamma=2.0, alpha=0.25), axis=-1)
    np.testing.assert_allclose(result, np.where(labels == IGNORE, 0, expected), rtol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other compilers fuse differently")
def test_memory_beside_logits_and_gradient_is_twice_the_logits():
    logits = jax.ShapeDtypeStruct((500, 80), jnp.float32)
    labels = jax.ShapeDtypeStruct((500,), jnp.int32)

    @jax.jit
    @jax.value_and_grad
    def total(logits, labels, gamma, alpha):
        return focal_loss_from_labels(logits, labels, gamma=gamma, alpha=alpha).sum()

    memory = total.lower(logits, labels, 2.0, 0.25).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= 2.2 * 4 * math.prod(logits.shape)


# Box losses.


def test_smooth_l1_by_hand():
    pred = np.array([0, 0.05, -0.1, 0.5, -2], np.float32)
    loss = core.smooth_l1(pred, np.zeros(5, np.float32), 0.1)
    # d^2 / .2 below .1, d - .05 from there on.
    np.testing.assert_allclose(loss, [0, 0.0125, 0.05, 0.45, 1.95], rtol=1e-5)
    np.testing.assert_array_equal(core.smooth_l1(pred, np.zeros(5, np.float32), 0), np.abs(pred))
    gradient = jax.grad(lambda p: core.smooth_l1(p, np.zeros(5, np.float32), 0.0).sum())(pred)
    np.testing.assert_array_equal(gradient, [0, 1, -1, 1, -1])


def test_giou_loss_by_hand():
    same = np.array([[0, 0, 4, 2]], np.float32)
    np.testing.assert_allclose(core.giou_loss(same, same), [0], atol=1e-7)
    # 1 - (.2 - 4/24), see test_boxes.
    other = np.array([[2, 0, 6, 4]], np.float32)
    np.testing.assert_allclose(core.giou_loss(same, other), [0.8 + 4 / 24], rtol=1e-6)


# The loss of a batch.

_loss = jax.jit(retinanet_loss, static_argnames="config")


@pytest.fixture(scope="module")
def torchvision_case(golden):
    """Stored head outputs, per level, and their targets: boxes on image 0, none on image 1."""
    config = AnchorConfig(order="ratio_major", rounding="torchvision", strides="grid")
    anchors = anchors_for_image(tuple(int(n) for n in golden["post/padded_size"]), config)
    counts = golden["post/num_anchors_per_level"]
    assert [len(level) for level in anchors] == counts.tolist()
    ends = np.cumsum(counts)[:-1]
    logits, deltas = (
        tuple(np.split(golden[key].astype(np.float32), ends, axis=1))
        for key in ("post/logits", "post/regression")
    )
    gt_boxes = golden["loss/boxes0"]
    labels = golden["loss/labels0"].astype(np.int32)
    gt = np.stack([gt_boxes, gt_boxes]), np.stack([labels, np.full_like(labels, -1)])
    every = np.concatenate(anchors)
    crowd = np.zeros(len(labels), bool)
    targets = jax.jit(
        jax.vmap(lambda boxes, labels: assign(every, boxes, labels, crowd, MatchingConfig()))
    )(*gt)
    return logits, deltas, anchors, targets


def test_matching_of_the_case_equals_torchvision(golden, torchvision_case):
    _, _, _, targets = torchvision_case
    matched = golden["loss/matched0"].astype(np.int32)
    expected = np.where(matched >= 0, golden["loss/labels0"][matched], matched)
    np.testing.assert_array_equal(targets.labels[0], expected)
    assert (targets.labels[1] == NEGATIVE).all()


@pytest.mark.parametrize("box", ["l1", "smooth_l1", "giou"])
def test_loss_and_gradients_equal_torchvision(golden, torchvision_case, box):
    logits, deltas, anchors, targets = torchvision_case
    config = LossConfig(box=box, beta=1.0, normalizer="image")
    valid = np.ones(len(targets.labels), bool)

    def total(heads):
        result = retinanet_loss(*heads, anchors, targets, valid, config)
        return result.total, result

    (by_logits, by_deltas), result = jax.jit(jax.grad(total, has_aux=True))((logits, deltas))
    values = golden[f"loss/{box}/values"]
    np.testing.assert_allclose([result.class_loss, result.box_loss], values, rtol=1e-5)
    for gradient, key in (
        (by_logits, "loss/grad_logits"),
        (by_deltas, f"loss/{box}/grad_regression"),
    ):
        whole = np.concatenate(gradient, axis=1)
        assert whole.shape == tuple(golden[key + "/shape"])
        rows = whole.reshape(-1)[:: int(golden[key + "/step"])]
        scale = np.abs(golden[key + "/slice"]).max()
        np.testing.assert_allclose(rows, golden[key + "/slice"], rtol=2e-5, atol=1e-5 * scale)
        absolutes, squares = np.abs(whole).sum(dtype=np.float64), np.square(whole).sum()
        np.testing.assert_allclose([absolutes, squares], golden[key + "/stats"][1:3], rtol=1e-4)


ANCHORS = tuple(
    level.astype(np.float32)
    for level in anchors_for_image((32, 32), AnchorConfig(max_level=4, scales=(1,)))
)
TOTAL = sum(map(len, ANCHORS))


def _heads(batch, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = tuple(rng.normal(-2, 1, (batch, len(a), classes)).astype(np.float32) for a in ANCHORS)
    deltas = tuple(rng.normal(0, 0.3, (batch, len(a), 4)).astype(np.float32) for a in ANCHORS)
    return logits, deltas


def _targets(labels):
    labels = np.asarray(labels, np.int32)
    gt_boxes = np.broadcast_to(np.array([2, 3, 20, 30], np.float32), (*labels.shape, 4))
    return Targets(labels, np.where(labels[..., None] >= 0, gt_boxes, 0).astype(np.float32))


def _labels(batch, positives, seed=1):
    labels = np.full((batch, TOTAL), NEGATIVE, np.int32)
    labels[:, ::7] = IGNORE
    for image, count in enumerate(positives):
        places = np.random.default_rng(seed + image).choice(TOTAL, count, replace=False)
        labels[image, places] = np.arange(count) % 3
    return labels


@pytest.mark.parametrize(
    "box, normalizer",
    [("l1", "batch"), ("smooth_l1", "batch"), ("smooth_l1", "image"), ("giou", "image")],
)
def test_without_positives_the_class_loss_remains(box, normalizer):
    heads = _heads(2)
    targets = _targets(np.full((2, TOTAL), NEGATIVE))
    config = LossConfig(box=box, normalizer=normalizer)

    def total(heads):
        result = _loss(*heads, ANCHORS, targets, np.ones(2, bool), config)
        return result.total, result

    gradient, result = jax.jit(jax.grad(total, has_aux=True))(heads)
    assert result.class_loss > 0 and result.box_loss == 0 and result.num_positives == 0
    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert all(np.abs(leaf).sum() > 0 for leaf in gradient[0])
    assert not any(leaf.any() for leaf in gradient[1])


@pytest.mark.parametrize("normalizer", ["batch", "image"])
def test_no_valid_image_gives_zero(normalizer):
    targets = _targets(_labels(2, (3, 4)))
    config = LossConfig(normalizer=normalizer)
    result = _loss(*_heads(2), ANCHORS, targets, np.zeros(2, bool), config)
    assert [float(value) for value in result] == [0, 0, 0, 0]


@pytest.mark.parametrize("normalizer", ["batch", "image"])
def test_normalizers(normalizer):
    heads, labels, config = _heads(2), _labels(2, (9, 0)), LossConfig(normalizer=normalizer)
    both = _loss(*heads, ANCHORS, _targets(labels), np.ones(2, bool), config)
    alone = []
    for image in (slice(0, 1), slice(1, 2)):
        head, target = jax.tree.map(lambda a, i=image: a[i], (heads, _targets(labels)))
        alone.append(_loss(*head, ANCHORS, target, np.ones(1, bool), config))
    assert both.num_positives == 9
    # Alone, their divisors are 9 and max(1, 0); batch divides both by 9, image takes a mean.
    factors = np.array([1, 1 / 9] if normalizer == "batch" else [0.5, 0.5])
    parts = np.array([[one.class_loss, one.box_loss] for one in alone])
    np.testing.assert_allclose([both.class_loss, both.box_loss], factors @ parts, rtol=1e-5)


@pytest.mark.parametrize("box, normalizer", [("smooth_l1", "batch"), ("giou", "image")])
def test_images_that_pad_the_batch_change_nothing(box, normalizer):
    heads, labels = _heads(3), _labels(3, (4, 2, 8))
    config = LossConfig(box=box, normalizer=normalizer)
    valid = np.array([True, True, False])
    padded = _loss(*heads, ANCHORS, _targets(labels), valid, config)
    cut = jax.tree.map(lambda a: a[:2], heads)
    bare = _loss(*cut, ANCHORS, _targets(labels[:2]), valid[:2], config)
    np.testing.assert_allclose(padded, bare, rtol=1e-6)


def test_ignored_anchors_have_no_gradient():
    heads, labels = _heads(2), _labels(2, (3, 0))
    targets = _targets(labels)

    def total(heads):
        return _loss(*heads, ANCHORS, targets, np.ones(2, bool), LossConfig()).total

    by_logits, by_deltas = (np.concatenate(part, axis=1) for part in jax.grad(total)(heads))
    touched = np.abs(by_logits).sum(-1) > 0
    np.testing.assert_array_equal(touched, labels != IGNORE)
    np.testing.assert_array_equal(np.abs(by_deltas).sum(-1) > 0, labels >= 0)


@pytest.mark.parametrize("normalizer", ["batch", "image"])
def test_the_parts_of_the_loss_are_those_of_each_level_and_image(normalizer):
    heads, labels = _heads(3), _labels(3, (9, 0, 4))
    valid, config = np.array([True, True, False]), LossConfig(normalizer=normalizer)
    whole = _loss(*heads, ANCHORS, _targets(labels), valid, config)
    parts = loss_parts(*heads, ANCHORS, _targets(labels), valid, config)
    assert parts.class_loss.shape == (len(ANCHORS), 3)
    for name, part in parts._asdict().items():
        assert np.sum(part) == pytest.approx(float(getattr(whole, name)), rel=1e-5)
        assert not part[:, 2].any()
    # One cell alone: what is left of the sums where all other anchors are ignored.
    places = np.arange(TOTAL)
    alone = np.where(places < len(ANCHORS[0]), labels[:1], IGNORE)
    sums = _loss(*(tuple(x[:1] for x in head) for head in heads), ANCHORS, _targets(alone),
                 np.ones(1, bool), config)  # fmt: skip
    share = float(sums.num_positives) / 9 / (2 if normalizer == "image" else 1)
    assert parts.num_positives[0, 0] == sums.num_positives > 0
    for name in ("class_loss", "box_loss"):
        expected = float(getattr(sums, name)) * share
        assert getattr(parts, name)[0, 0] == pytest.approx(expected, rel=1e-5)


def test_parameters_replace_those_of_the_config_and_none_is_no_weighting():
    """At logits of 0 a negative has log(2) for each class, times .75 for alpha .25, 2^-gamma."""
    heads, targets = jax.tree.map(np.zeros_like, _heads(1)), _targets(_labels(1, (0,)))
    config = LossConfig(gamma=0.0, alpha=0.25)
    negatives = 3 * np.sum(targets.labels == NEGATIVE) * np.log(2)
    for params, weight in (
        (None, 0.75),
        (FocalParams(0.0, None), 1.0),
        (FocalParams(1.0, 0.25), 0.375),
    ):
        found = retinanet_loss(*heads, ANCHORS, targets, np.ones(1, bool), config, focal=params)
        assert found.class_loss == pytest.approx(weight * negatives, rel=1e-5)


def test_a_sweep_over_gamma_and_alpha_compiles_once():
    heads, targets = _heads(1), _targets(_labels(1, (5,)))
    traces = []

    @jax.jit
    def run(gamma, alpha):
        traces.append(1)
        config = LossConfig(box_weight=2.0)
        valid = np.ones(1, bool)
        return retinanet_loss(
            *heads, ANCHORS, targets, valid, config, focal=FocalParams(gamma, alpha)
        )

    for gamma, alpha in ((0.0, 0.5), (0.5, 0.75)):
        traced = run(gamma, alpha)
        config = LossConfig(gamma=gamma, alpha=alpha, box_weight=2.0)
        constant = _loss(*heads, ANCHORS, targets, np.ones(1, bool), config)
        np.testing.assert_allclose(traced, constant, rtol=1e-5)
        assert traced.total == pytest.approx(float(traced.class_loss + 2 * traced.box_loss))
    assert len(traces) == 1


def test_jit_equals_eager():
    arguments = *_heads(2), ANCHORS, _targets(_labels(2, (5, 1))), np.ones(2, bool), LossConfig()
    np.testing.assert_allclose(_loss(*arguments), retinanet_loss(*arguments), rtol=1e-5)


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"gamma": -1.0}, "loss.gamma: -1.0"),
        ({"beta": -0.1}, "loss.beta: -0.1"),
        ({"alpha": 1.5}, "loss.alpha: 1.5 .* write 'none'"),
        ({"box": "l2"}, "'l2' is not one of smooth_l1, l1, giou"),
        ({"normalizer": "sum"}, "'sum' is not one of batch, batch_plus_one"),
        ({"box_weight": float("nan")}, "loss.box_weight: nan"),
        ({"classification": "ce"}, "'ce' is not one of focal, cross_entropy"),
        ({"classification": "focal_star", "gamma": 0}, "loss.gamma: focal_star divides by it"),
        ({"hard_examples": -1}, "loss.hard_examples: -1"),
        ({"hard_examples_iou": 70}, "loss.hard_examples_iou: 70"),
        ({"negatives_per_positive": 3}, "loss.hard_examples: none leaves no room"),
    ],
)
def test_bad_fields_say_what_to_write(fields, says):
    with pytest.raises(ValueError, match=says):
        LossConfig(**fields)
