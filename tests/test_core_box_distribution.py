"""Distributions of box sides against the paper's formulas in NumPy float64, and in the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_batch, small_config

from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.box_coder import decode
from retinanet_jax.core.box_distribution import deltas_of, distribution_losses
from retinanet_jax.core.box_outputs import BoxOutputs, join_levels
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.core.targets import IGNORE, NEGATIVE, Targets
from retinanet_jax.data.records import Categories
from retinanet_jax.export.plain_network import make_network_program
from retinanet_jax.inference.predict import run_network
from retinanet_jax.inference.trained import Trained
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training.setup import make_setup
from retinanet_jax.weights import WeightsError
from retinanet_jax.weights.torchvision_export import export_torchvision

BINS = 17


def softmax64(logits):
    powers = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def distances64(anchor, box):
    """Of the sides of a box from the anchor's centre, in eighths of the anchor."""
    x1, y1, x2, y2 = np.float64(anchor)
    x, y, width, height = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    left, top, right, bottom = x - box[0], y - box[1], box[2] - x, box[3] - y
    return 8 * np.array([left / width, top / height, right / width, bottom / height])


def loss64(logits, anchor, box):
    """Equation 6 of arXiv 2006.04388, the mean over the sides; y within the steps."""
    losses = []
    for shares, y in zip(softmax64(logits), distances64(anchor, box), strict=True):
        y = min(max(y, 0), BINS - 1)
        i = min(int(y), BINS - 2)
        losses.append(-((i + 1 - y) * np.log(shares[i]) + (y - i) * np.log(shares[i + 1])))
    return np.mean(losses)


def drawn(count=100):
    """Logits, anchors, and boxes of which some are larger than the steps or beside the anchor."""
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 60, (2, count, 2))
    anchors = np.concatenate([corner, corner + side + 4], 1).astype(np.float32)
    moved = corner + rng.uniform(-1.5, 1, (count, 2)) * side
    boxes = np.concatenate([moved, moved + side * rng.uniform(0.2, 4, (count, 2))], 1)
    return rng.normal(0, 2, (count, 4, BINS)).astype(np.float32), anchors, boxes.astype(np.float32)


def test_boxes_have_the_means_of_their_distributions():
    logits, anchors, _ = drawn()
    means = (softmax64(logits) * np.arange(BINS)).sum(-1) / 8
    centers, sizes = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    wanted = np.concatenate([centers - means[:, :2] * sizes, centers + means[:, 2:] * sizes], 1)
    np.testing.assert_allclose(decode(anchors, deltas_of(logits)), wanted, rtol=1e-5, atol=1e-4)


def test_losses_equal_the_formula():
    logits, anchors, boxes = drawn()
    wanted = [loss64(*row) for row in zip(logits, anchors, boxes, strict=True)]
    distances = np.array([distances64(*row) for row in zip(anchors, boxes, strict=True)])
    assert (distances < 0).any() and (distances > BINS - 1).any()
    found = distribution_losses(np.stack([logits, logits]), anchors, np.stack([boxes, boxes]))
    np.testing.assert_allclose(found, [wanted, wanted], rtol=1e-5)


def test_the_least_loss_is_that_of_the_box_itself():
    """Section 3.2: S_i = y_{i+1} - y, S_{i+1} = y - y_i. Its mean is the box, its gradient 0."""
    anchor, box = np.float32([[8, 8, 24, 40]]), np.float32([[5, 12, 33, 37]])
    distances = distances64(anchor[0], box[0])
    np.testing.assert_array_equal(distances, [5.5, 3, 8.5, 3.25])
    target = np.maximum(1 - np.abs(np.arange(BINS) - distances[:, None]), 0)
    logits = np.float32(np.log(np.maximum(target, 1e-20)))[None]
    np.testing.assert_allclose(decode(anchor, deltas_of(logits)), box, rtol=1e-5)
    gradient = jax.grad(lambda x: distribution_losses(x, anchor, box).sum())(logits)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_gradients_are_finite(scale):
    logits, anchors, boxes = drawn()
    boxes[:2] = 0
    logits[:, 0] = [1] + (BINS - 1) * [-1]  # certain of step 0 on all sides: an empty box
    logits[:, 1] = (BINS - 1) * [-1] + [1]
    logits = jnp.asarray(scale * logits)
    for function in (
        lambda x: distribution_losses(x, anchors, boxes).sum(),
        lambda x: decode(anchors, deltas_of(x)).sum(),
    ):
        value, gradient = jax.value_and_grad(function)(logits)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("rated", [False, True])
def test_outputs_of_levels_are_joined(rated):
    logits, deltas = drawn(6)[0], np.arange(24, dtype=np.float16).reshape(6, 4)
    whole = BoxOutputs(deltas, np.arange(6.0) if rated else None, logits)
    levels = [jax.tree.map(lambda x, part=part: x[part], whole) for part in np.split(range(6), [2])]
    joined = join_levels(levels, axis=0)
    assert joined.deltas.dtype == np.float32
    jax.tree.map(np.testing.assert_array_equal, joined, whole)
    plain = join_levels([deltas[None, :2], deltas[None, 2:]])
    np.testing.assert_array_equal(plain.deltas, deltas[None])
    assert plain.centerness is plain.distributions is None


@pytest.mark.parametrize("weight", [0.125, 0.5])
def test_only_positives_have_a_distribution_to_learn(weight):
    logits, anchors, boxes = drawn(40)
    rng = np.random.default_rng(1)
    labels = rng.choice([NEGATIVE, IGNORE, 0, 1], (2, 40)).astype(np.int32)
    targets, valid = Targets(labels, np.stack([boxes, boxes])), np.array([True, False])
    class_logits = rng.normal(0, 1, (2, 40, 2)).astype(np.float32)
    logits_of_both = np.stack([logits, logits])
    deltas = deltas_of(logits_of_both)
    outputs = BoxOutputs(deltas, distributions=logits_of_both)
    config = LossConfig(box_weight=2.0, box="giou", distribution_weight=weight)
    with_it, without = (
        retinanet_loss((class_logits,), (part,), (anchors,), targets, valid, config)
        for part in (outputs, deltas)
    )
    positive = np.flatnonzero(labels[0] >= 0)
    losses = np.mean([loss64(logits[n], anchors[n], boxes[n]) for n in positive])
    np.testing.assert_allclose(with_it.box_loss - without.box_loss, weight * losses, rtol=1e-4)
    np.testing.assert_allclose(with_it.total - without.total, 2 * weight * losses, rtol=1e-4)


CATEGORIES = Categories(tuple("abcde"), (1, 2, 3, 4, 5))


def model_of(config):
    return build_model(config.model, 5, config.anchors.anchors_per_location)


@pytest.fixture(scope="module")
def network():
    """Config, batch, and variables of a network with distributions and the centre-ness."""
    config = small_config(
        model__box_bins=BINS, model__centerness=True, matching__assigner="atss", loss__box="giou"
    )
    start = jax.jit(lambda key: model_of(config).init(key, jnp.zeros((1, 64, 64, 3)), train=False))
    return config, small_batch(rows=2), start(jax.random.key(0))


def test_the_head_returns_deltas_centerness_and_distributions(network):
    config, batch, variables = network
    predict = jax.jit(lambda x: model_of(config).apply(variables, x, train=False))
    kernel = variables["params"]["box_head"]["output"]["kernel"]
    assert kernel.shape[-1] == config.anchors.anchors_per_location * 4 * BINS
    for level in predict(np.float32(batch.images) / 255).box_deltas:
        assert level.distributions.shape[2:] == (4, BINS)
        assert level.centerness.shape == level.deltas.shape[:2]
        np.testing.assert_allclose(level.deltas, deltas_of(level.distributions), atol=1e-6)
        # Small initial weights: all steps alike, a box of twice the anchor around it.
        np.testing.assert_allclose(level.deltas[..., 2:], np.log(2), atol=0.2)


@pytest.mark.extended
def test_the_distributions_train(network):
    config, batch, _ = network
    setup = make_setup(config, CATEGORIES, make_mesh(), print)
    before = jax.device_get(setup.state.params)["box_head"]["output"]["kernel"]
    state, metrics = setup.step_fn(setup.state, batch, setup.focal, np.float32(0.01))
    assert not metrics["skipped"] and metrics["positives"] > 0
    assert (state.params["box_head"]["output"]["kernel"] != before).any()


def test_the_exported_network_has_the_boxes_of_the_distributions(network):
    config, batch, variables = network
    images = np.float32(batch.images)
    program = make_network_program(Trained(variables, config, CATEGORIES), (64, 64), nms=False)
    every = jax.jit(program)(images)
    sizes = np.full((2, 2), 64, np.float32)
    levels = run_network(variables, images, sizes, model=model_of(config), config=config)[1]
    means = (softmax64(join_levels(levels).distributions) * np.arange(BINS)).sum(-1) / 8
    widths = means[..., 0] + means[..., 2]
    inside = (every["boxes"][..., 0] > 0) & (every["boxes"][..., 2] < 64)
    assert inside.any()
    anchors = np.concatenate(anchors_for_image((64, 64), config.anchors))
    wanted = widths * (anchors[:, 2] - anchors[:, 0])
    found = every["boxes"][..., 2] - every["boxes"][..., 0]
    np.testing.assert_allclose(found[inside], wanted[inside], rtol=1e-3)


def test_torchvision_has_no_distributions(network, tmp_path):
    config, _, variables = network
    config = small_config(model__box_bins=BINS)
    with pytest.raises(WeightsError, match=r"config.model.box_bins: 17 is not supported"):
        export_torchvision(variables, config, tmp_path / "out.safetensors")


@pytest.mark.parametrize("bins", [-1, 1])
def test_one_step_is_no_distribution(bins):
    with pytest.raises(ValueError, match=r"model.box_bins: -?1 must be 2 or more, or 0"):
        small_config(model__box_bins=bins)
