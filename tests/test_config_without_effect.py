"""Fields that the table lists have no effect there, and have one elsewhere."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_config

from retinanet_jax.config.experiment_files import experiment_paths, load_experiment
from retinanet_jax.config.settings import from_config_dict
from retinanet_jax.config.without_effect import ROWS, lines_without_effect, reason_without_effect
from retinanet_jax.core.assignment import assign
from retinanet_jax.core.box_outputs import BoxOutputs
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.postprocess import Detections, suppress
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.core.targets import Targets
from retinanet_jax.training.optimizer import make_optimizer, make_schedule

ANCHORS = np.float32([[x, y, x + s, y + s] for s in (16, 24) for x in (0, 12, 24) for y in (0, 9)])
BOXES = np.float32([[2, 1, 19, 17], [20, 8, 44, 33], [11, 9, 28, 30], [60, 60, 72, 72]])


def of_loss(config):
    """The loss of a small batch, with distributions if the network predicts them."""
    rng = np.random.default_rng(0)
    count, bins = len(ANCHORS), config.model.box_bins
    deltas = rng.normal(0, 0.3, (1, count, 4)).astype(np.float32)
    shape = (1, count, 4, bins)
    outputs = (
        BoxOutputs(deltas, None, rng.normal(size=shape).astype(np.float32)) if bins else deltas
    )
    labels = np.int32([0, -1, 2, -1, 1, 0, -1, -1, 2, 1, 0, -1])[None]
    targets = Targets(labels, BOXES[np.maximum(labels, 0)])
    logits = (rng.normal(0, 2, (1, count, 3)).astype(np.float32),)
    loss = retinanet_loss(logits, (outputs,), (ANCHORS,), targets, np.ones(1, bool), config.loss)
    return np.float32(loss.total)


def of_matching(config):
    """The targets; the last box has an IoU of .25 with an anchor of its own."""
    rng = np.random.default_rng(0)
    anchors = np.concatenate([ANCHORS, np.float32([[60, 60, 84, 84], [90, 90, 99, 99]])])
    predictions = (rng.normal(size=(len(anchors), 3)),), (np.zeros((len(anchors), 4)),)
    parts = anchors, BOXES, np.int32([0, 1, 2, 0]), np.zeros(4, bool), config.matching
    predictions = jax.tree.map(np.float32, predictions)
    targets = assign(*parts, anchors_per_location=2, predictions=predictions)
    return np.concatenate([np.ravel(part) for part in jax.tree.leaves(targets)])


def of_model(config):
    """The program of the network in training, without its weights."""
    model = build_model(config.model, 3, 1)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    program = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(
        variables, images
    )
    return re.sub("0x[0-9a-f]+", "", str(program))


def of_optimizer(config):
    params = {"backbone": {"conv": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    optimizer = make_optimizer(config.optimizer, jax.tree.map(lambda _: True, params))
    state, found = optimizer.init(params), []
    for _ in range(2):
        updates, state = optimizer.update(params, state, params, learning_rate=0.1)
        found += [np.ravel(leaf) for leaf in jax.tree.leaves(updates)]
    schedule = make_schedule(config.optimizer, 16, 12)
    return np.concatenate([*found, [schedule(step) for step in range(13)]])


def of_postprocess(config):
    scores = np.linspace(0.9, 0.3, len(ANCHORS)).astype(np.float32)
    labels = np.zeros(len(ANCHORS), np.int32)
    found = suppress(Detections(ANCHORS, scores, labels, scores > 0), config.postprocess)
    return np.concatenate([np.ravel(part) for part in found])


CASES = [  # a field and another value; where it has no effect; where it has one
    ("loss.gamma", 5.0, {"loss__classification": "cross_entropy"}, {}),
    ("loss.alpha", 0.9, {"loss__classification": "quality_focal"}, {}),
    *(
        (
            "loss.star_beta",
            1.0,
            {"loss__classification": name},
            {"loss__classification": "focal_star"},
        )
        for name in ("focal", "cross_entropy", "quality_focal", "varifocal")
    ),
    *(("loss.beta", 1.0, {"loss__box": name}, {}) for name in ("l1", "giou", "diou", "ciou")),
    ("loss.distribution_weight", 1.0, {}, {"model__box_bins": 9}),
    ("loss.hard_examples_iou", 0.2, {}, {"loss__hard_examples": 4}),
    *(
        (f"matching.{field}", value, {"matching__assigner": name}, {})
        for name in ("atss", "task_aligned")
        for field, value in (
            ("positive_iou", 0.95),
            ("negative_iou", 0.05),
            ("low_quality", "none"),
        )
    ),
    *(
        ("matching.low_quality_min_iou", 0.9, {"matching__assigner": name}, {})
        for name in ("atss", "task_aligned")
    ),
    ("matching.low_quality_min_iou", 0.9, {"matching__low_quality": "none"}, {}),
    *(
        ("matching.atss_locations", 1, {"matching__assigner": name}, {"matching__assigner": "atss"})
        for name in ("iou", "task_aligned")
    ),
    *(
        (
            f"matching.{field}",
            value,
            {"matching__assigner": name},
            {"matching__assigner": "task_aligned"},
        )
        for name in ("iou", "atss")
        for field, value in (
            ("aligned_anchors", 1),
            ("aligned_score_power", 3.0),
            ("aligned_iou_power", 0.0),
        )
    ),
    ("model.stride_on", "1x1", {"model__backbone": "resnet34"}, {"model__backbone": "resnet50"}),
    ("model.norm_momentum", 0.5, {"model__norm": "group"}, {}),
    ("optimizer.momentum", 0.5, {"optimizer__name": "adamw"}, {}),
    ("optimizer.nesterov", True, {"optimizer__name": "adamw"}, {}),
    *(
        (
            f"optimizer.{field}",
            value,
            {"optimizer__schedule": name},
            {"optimizer__schedule": "step"},
        )
        for name in ("cosine", "constant")
        for field, value in (("decay_at", (0.2,)), ("decay_factor", 0.5))
    ),
    ("optimizer.decay", "kernels", {"optimizer__weight_decay": 0.0}, {}),
    (
        "optimizer.warmup_factor",
        0.5,
        {"optimizer__warmup_steps": 0},
        {"optimizer__warmup_steps": 5},
    ),
    *(
        (
            "postprocess.soft_sigma",
            0.1,
            {"postprocess__nms": name},
            {"postprocess__nms": "soft_gaussian"},
        )
        for name in ("class_wise", "class_agnostic", "soft_linear")
    ),
]
OUTCOMES = {
    "loss": of_loss,
    "matching": of_matching,
    "model": of_model,
    "optimizer": of_optimizer,
    "postprocess": of_postprocess,
}


@pytest.mark.parametrize(("field", "value", "without", "with_effect"), CASES)
def test_the_table_is_true(field, value, without, with_effect):
    outcome, name = OUTCOMES[field.partition(".")[0]], field.replace(".", "__")
    for base, has_effect in ((without, False), (with_effect, True)):
        first, second = small_config(**base), small_config(**base, **{name: value})
        assert bool(reason_without_effect(first, field)) != has_effect
        assert np.array_equal(outcome(first), outcome(second)) != has_effect, base


def test_frozen_stages_of_random_weights_are_none():
    first, second = small_config(model__frozen_stages=1), small_config(model__frozen_stages=3)
    assert first == second and reason_without_effect(first, "model.frozen_stages")


def test_all_rows_name_fields_and_those_of_the_host_depend_on_their_reason():
    config = small_config()
    tested = {case[0] for case in CASES} | {"model.frozen_stages"}
    of_host = {row.field for row in ROWS} - tested
    assert {field.partition(".")[0] for field in of_host} <= {
        *("augmentation", "train", "evaluation", "data")
    }
    assert {field for field in of_host if reason_without_effect(config, field)} == of_host - {
        "evaluation.backend"
    }
    auto = small_config(train__steps="auto", train__batch_size="auto", augmentation__mixup=0.5)
    for field in ("train.memory_limit", "augmentation.close_mosaic"):
        assert not reason_without_effect(auto, field)


def test_only_fields_that_were_set_have_a_line():
    assert lines_without_effect(small_config()) == []
    found = lines_without_effect(
        small_config(loss__gamma=5.0, loss__classification="cross_entropy", data__root="mine")
    )
    assert found == [
        "config.loss.gamma=5.0 has no effect: loss.classification is cross_entropy",
        "config.data.root=mine has no effect: data.name is shapes",
    ]


def test_experiments_set_no_field_without_effect():
    for name in experiment_paths():
        small = [":small"] if name.startswith("paper/") else []
        for variant in ["", *small]:
            if name != "folder":
                config = from_config_dict(load_experiment(f"{name}{variant}"))
                assert lines_without_effect(config) == [], name
