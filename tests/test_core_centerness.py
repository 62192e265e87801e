"""The centre-ness branch against FCOS's formulas in NumPy float64, and through the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_batch, small_config

from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.box_outputs import BoxOutputs, join_levels
from retinanet_jax.core.centerness import centerness, centerness_losses
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.postprocess import PostprocessConfig, detect
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.core.targets import IGNORE, NEGATIVE, Targets
from retinanet_jax.data.records import Categories
from retinanet_jax.export.plain_network import make_network_program
from retinanet_jax.inference.predict import run_network
from retinanet_jax.inference.trained import Trained
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training.setup import make_setup
from retinanet_jax.weights import WeightsError
from retinanet_jax.weights.keymap import fill
from retinanet_jax.weights.torchvision import detector_key
from retinanet_jax.weights.torchvision_export import export_torchvision


def centerness64(anchor, box):
    """Equation 3 of arXiv 1904.01355; 0 outside, where the paper has no target."""
    x, y = (np.float64(anchor[:2]) + np.float64(anchor[2:])) / 2
    left, top, right, bottom = x - box[0], y - box[1], float(box[2]) - x, float(box[3]) - y
    if min(left, top, right, bottom) <= 0:
        return 0.0
    shares = min(left, right) / max(left, right), min(top, bottom) / max(top, bottom)
    return np.sqrt(np.prod(shares))


def boxes_around(rng, count):
    """Anchors, and boxes that hold the centres of most of them."""
    corner, side = rng.uniform(0, 60, (count, 2)), rng.uniform(4, 60, (count, 2))
    anchors = np.concatenate([corner, corner + side], 1).astype(np.float32)
    moved = corner + rng.uniform(-0.6, 0.6, (count, 2)) * side
    boxes = np.concatenate([moved, moved + side * rng.uniform(0.7, 1.5, (count, 2))], 1)
    return anchors, boxes.astype(np.float32)


def cross_entropy64(logits, targets):
    p = 1 / (1 + np.exp(-np.float64(logits)))
    return -targets * np.log(p) - (1 - targets) * np.log1p(-p)


def test_targets_and_losses_equal_the_formula():
    rng = np.random.default_rng(0)
    anchors, boxes = boxes_around(rng, 200)
    wanted = np.array([centerness64(*pair) for pair in zip(anchors, boxes, strict=True)])
    assert 10 < (wanted == 0).sum() < 100 and wanted.max() > 0.9
    np.testing.assert_allclose(centerness(anchors, boxes), wanted, atol=2e-6)
    logits = rng.normal(0, 3, (2, 200)).astype(np.float32)
    found = centerness_losses(logits, anchors, np.stack([boxes, boxes]))
    np.testing.assert_allclose(found, cross_entropy64(logits, wanted), rtol=1e-4, atol=1e-5)


def test_by_hand():
    """The centre (10, 10) in boxes with l, r = 10, 10; 5, 20; and on a side."""
    anchor = np.float32([[8, 8, 12, 12]])
    boxes = np.float32([[0, 0, 20, 20], [5, 0, 30, 20], [10, 0, 20, 20], [0, 0, 0, 0]])
    np.testing.assert_allclose(centerness(anchor, boxes), [1, 0.5, 0, 0], atol=1e-7)


@pytest.mark.parametrize("logit", [-100.0, 0.0, 100.0])
def test_gradients_are_finite(logit):
    anchors = np.float32([[8, 8, 12, 12], [8, 8, 12, 12], [8, 8, 12, 12]])
    boxes = np.float32([[0, 0, 20, 20], [10, 0, 20, 20], [0, 0, 0, 0]])
    gradient = jax.grad(lambda x: centerness_losses(x, anchors, boxes).sum())(jnp.full(3, logit))
    p = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(gradient, [p - 1, p, p], atol=1e-6)


@pytest.mark.parametrize("box_weight", [1.0, 2.0])
def test_only_positives_are_rated_and_count_as_their_boxes(box_weight):
    rng = np.random.default_rng(1)
    anchors, boxes = boxes_around(rng, 40)
    labels = rng.choice([NEGATIVE, IGNORE, 0, 1], (2, 40)).astype(np.int32)
    targets = Targets(labels, np.stack([boxes, boxes]))
    logits = rng.normal(0, 1, (2, 40, 2)).astype(np.float32)
    deltas, rated = rng.normal(0, 1, (2, 40, 4)), rng.normal(0, 1, (2, 40))
    outputs = BoxOutputs(np.float32(deltas), np.float32(rated))
    config, valid = LossConfig(box_weight=box_weight, box="giou"), np.array([True, False])
    with_branch, without = (
        retinanet_loss((logits,), (part,), (anchors,), targets, valid, config)
        for part in (outputs, outputs.deltas)
    )
    positive = labels[0] >= 0
    wanted = [centerness64(*pair) for pair in zip(anchors, boxes, strict=True)]
    losses = (
        cross_entropy64(outputs.centerness[0], np.array(wanted))[positive].sum() / positive.sum()
    )
    np.testing.assert_allclose(with_branch.box_loss - without.box_loss, losses, rtol=1e-4)
    assert with_branch.class_loss == without.class_loss
    np.testing.assert_allclose(with_branch.total - without.total, box_weight * losses, rtol=1e-4)


def test_a_box_from_the_edge_of_an_object_loses_against_one_from_its_middle():
    """Class probabilities .9 and .6, centre-ness .1 and .8: scores .3 and .69; one box remains."""

    def logit(p):
        return np.float32(np.log(p / (1 - p)))

    anchors = np.float32([[10, 10, 50, 50], [12, 10, 52, 50], [70, 70, 90, 90]])
    class_logits = logit(np.array([[0.9, 0.01], [0.6, 0.01], [0.01, 0.004]]))
    outputs = BoxOutputs(np.zeros((3, 4), np.float32), logit(np.array([0.1, 0.8, 0.2])))
    config = PostprocessConfig(max_detections=3, score_threshold=0.05)
    size = np.float32([100, 100])
    found = detect((class_logits,), (outputs,), (anchors,), size, config)
    wanted = np.sqrt([0.6 * 0.8, 0.01 * 0.8])  # the others: .045, .03; and the first's second class
    np.testing.assert_array_equal(found.labels, [0, 1, -1])
    np.testing.assert_allclose(found.scores[:2], wanted, rtol=1e-5)
    np.testing.assert_array_equal(found.boxes[0], anchors[1])
    plain = detect((class_logits,), (outputs.deltas,), (anchors,), size, config)
    np.testing.assert_array_equal(plain.boxes[0], anchors[0])
    np.testing.assert_allclose(plain.scores[0], 0.9, rtol=1e-5)


CATEGORIES = Categories(tuple("abcde"), (1, 2, 3, 4, 5))


def model_of(config):
    return build_model(config.model, 5, config.anchors.anchors_per_location)


@pytest.fixture(scope="module")
def network():
    """Config, batch, and variables of a network with the branch."""
    config = small_config(model__centerness=True, matching__assigner="atss")
    start = jax.jit(lambda key: model_of(config).init(key, jnp.zeros((1, 64, 64, 3)), train=False))
    return config, small_batch(rows=2), start(jax.random.key(0))


@pytest.mark.extended
def test_the_branch_trains(network):
    config, batch, _ = network
    setup = make_setup(config, CATEGORIES, make_mesh(), print)
    before = jax.device_get(setup.state.params)["box_head"]["centerness"]
    state, metrics = setup.step_fn(setup.state, batch, setup.focal, np.float32(0.01))
    assert not metrics["skipped"] and metrics["positives"] > 0
    assert before["kernel"].shape == (3, 3, 16, config.anchors.anchors_per_location)
    assert not before["bias"].any()
    assert (state.params["box_head"]["centerness"]["kernel"] != before["kernel"]).any()


def test_the_branch_follows_the_box_tower(network):
    """Its channel is its own 3x3 convolution of the tower, in the order H, W, A."""
    config, batch, variables = network
    model = model_of(config)
    images = np.float32(batch.images) / 255
    apply = jax.jit(lambda x: model.apply(variables, x, train=False))
    features = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, images)["P3"]
    found = apply(images)
    head = variables["params"]["box_head"]
    tower = jax.nn.relu(convolve(features, head["conv0"]))
    rated = convolve(tower, head["centerness"]).reshape(2, -1)
    np.testing.assert_allclose(found.box_deltas[0].centerness, rated, atol=1e-5)
    plain = build_model(small_config().model, 5, config.anchors.anchors_per_location)
    less = variables["params"] | {"box_head": {k: v for k, v in head.items() if k != "centerness"}}
    shapes = jax.eval_shape(lambda: plain.init(jax.random.key(0), images[:1], train=False))
    assert jax.tree.structure(shapes["params"]) == jax.tree.structure(less)
    assert all(level.distributions is None for level in found.box_deltas)


def convolve(x, module):
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        x, module["kernel"], (1, 1), "SAME", dimension_numbers=dimensions
    )
    return y + module["bias"]


def test_the_exported_network_has_the_scores_of_the_branch(network):
    config, batch, variables = network
    trained = Trained(variables, config, CATEGORIES)
    images = np.float32(batch.images)
    every = jax.jit(make_network_program(trained, (64, 64), nms=False))(images)
    assert every["boxes"].shape[1] == sum(map(len, anchors_for_image((64, 64), config.anchors)))

    @jax.jit
    def outputs_of(images):
        sizes = np.full((2, 2), 64, np.float32)
        return run_network(variables, images, sizes, model=model_of(config), config=config)

    predictions = outputs_of(images)
    logits = np.float64(np.concatenate(predictions.class_logits, 1))
    rated = np.float64(join_levels(predictions.box_deltas).centerness)[..., None]
    product = 1 / (1 + np.exp(-logits)) / (1 + np.exp(-rated))
    np.testing.assert_allclose(every["scores"], np.sqrt(product), rtol=1e-4)


def test_weights_of_other_projects_have_no_branch(network, tmp_path):
    config, _, variables = network
    key = detector_key(("box_head", "conv0", "kernel"), 3, 3)
    tower = np.ones(variables["params"]["box_head"]["conv0"]["kernel"].shape, np.float32).transpose(
        3, 2, 0, 1
    )
    filled = fill(
        variables,
        {key: tower},
        lambda path: detector_key(path, 3, 3),
        partial=True,
        may_be_unused=lambda _: True,
    )
    assert filled.taken == ("box_head/conv0/kernel",) and not filled.misshapen
    assert "box_head/centerness/kernel" in filled.random
    with pytest.raises(WeightsError, match=r"config.model.centerness: True is not supported"):
        export_torchvision(variables, config, tmp_path / "out.safetensors")
