"""The loss of an evaluation: that of all images as one batch, in one pass of the network."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_batch, small_config

from retinanet_jax.core.anchor_losses import anchor_losses
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.loss_normalizer import divisors
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.core.retinanet import Predictions, build_model
from retinanet_jax.inference.predict import make_predict_fn
from retinanet_jax.training.batch_targets import assign_targets
from retinanet_jax.training.setup import init_variables
from retinanet_jax.training.step import focal_params
from retinanet_jax.training.validation_loss import (
    ImageLosses,
    MeasuredPrediction,
    dataset_losses,
    image_losses,
    losses_by_class,
    losses_by_level,
    make_measure_fn,
)

VALID = np.array([True, True, False, True])


def random_predictions(anchors) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        *(
            tuple(rng.normal(-2, 2, (4, len(part), last)).astype(np.float32) for part in anchors)
            for last in (5, 4)
        )
    )


def rows(tree, part: slice):
    return jax.tree.map(lambda x: x[part], tree)


NORMALIZERS = [
    *("batch", "batch_plus_one", "images_plus_one", "images_or_one", "image", "level", "running")
]


def test_batches_of_any_size_have_the_loss_of_one_batch():
    """Against the training loss of all images together; one row is padding.

    The focusing parameters are those of the arguments, not of the config.
    """
    config = small_config(loss__gamma=1.5, loss__box_weight=2.0)
    traced = small_config(loss__gamma=0.5, loss__alpha=None, loss__box_weight=2.0)
    batch = small_batch()._replace(valid=VALID)
    anchors = anchors_for_image((64, 64), config.anchors)
    predictions, focal = random_predictions(anchors), focal_params(config.loss)
    measure = jax.jit(functools.partial(image_losses, focal=focal, config=traced))
    halves = [
        measure(rows(predictions, part), rows(batch, part)) for part in (slice(0, 2), slice(2, 4))
    ]
    parts = ImageLosses(*(np.concatenate(part) for part in zip(*halves, strict=True)))
    targets = jax.jit(functools.partial(assign_targets, anchors, config=config))(batch)
    whole_loss = jax.jit(
        lambda divisor: retinanet_loss(
            *predictions, anchors, targets, VALID, config.loss, divisor=divisor
        )
    )
    positives = ((np.asarray(targets.labels) >= 0) & VALID[:, None]).sum()
    assert positives > 3
    for normalizer in NORMALIZERS:
        loss = dataclasses.replace(config.loss, normalizer=normalizer)
        mean = jnp.float32(positives / VALID.sum())
        divisor = divisors(targets.labels, VALID, tuple(map(len, anchors)), loss, mean)
        wanted = whole_loss(divisor)
        found = dataset_losses(parts, loss)
        for name, value in zip(found, wanted[:3], strict=True):
            assert found[name] == pytest.approx(float(value), rel=1e-5), (normalizer, name)


@pytest.mark.parametrize("normalizer", ["batch", "image", "level"])
def test_the_parts_of_levels_and_classes(normalizer):
    """Parts of levels sum to the loss; those of classes are sums over their positive anchors."""
    config = small_config(loss__box_weight=2.0, loss__normalizer=normalizer)
    batch = small_batch()._replace(valid=VALID)
    anchors = anchors_for_image((64, 64), config.anchors)
    predictions, focal = random_predictions(anchors), focal_params(config.loss)
    targets = assign_targets(anchors, batch, config)
    parts = jax.device_get(image_losses(predictions, batch, focal, config))
    found = Detections(
        np.zeros((4, 0, 4)), np.zeros((4, 0)), np.zeros((4, 0), int), np.zeros((4, 0), bool)
    )
    measured = MeasuredPrediction(lambda *_: (found, parts), focal)
    measured(None, batch)
    total = measured.losses(config.loss)["loss"]
    assert sum(losses_by_level(measured.recorded(), config.loss)) == pytest.approx(total)

    losses = anchor_losses(*predictions, anchors, targets, VALID, config.loss, focal=focal)
    labels = np.where(VALID[:, None], np.asarray(targets.labels), -1)
    levels = np.repeat(np.arange(len(anchors)), [len(level) for level in anchors])
    positive = np.stack([(labels >= 0) & (levels == n) for n in range(len(anchors))], axis=2)
    divisor = {
        "batch": positive.sum(),
        "image": np.maximum(positive.sum((1, 2)), 1)[:, None] * VALID.sum(),
        "level": np.maximum(positive.sum((0, 1)), 1)[levels],
    }[normalizer]
    values = (np.asarray(losses.class_loss) + 2 * np.asarray(losses.box_loss)) / divisor
    wanted = [values[labels == name].sum() for name in range(5)]
    assert np.count_nonzero(wanted) > 1
    found = losses_by_class(measured.recorded(), config.loss)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_detections_equal_prediction_and_the_network_runs_once():
    config, batch = small_config(), small_batch()
    model = build_model(config.model, 5, config.anchors.anchors_per_location)
    variables, focal = init_variables(model, 0), focal_params(config.loss)
    measure_fn, predict_fn = make_measure_fn(model, config), make_predict_fn(model, config)
    arguments = batch.images, batch.image_sizes, batch.original_sizes

    def convolutions(lowered):
        return len(re.findall(r" convolution\(| custom-call.*conv", lowered.compile().as_text()))

    ours = convolutions(measure_fn.compiled.lower(variables, focal, batch))
    assert ours == convolutions(predict_fn.compiled.lower(variables, *arguments)) > 0
    measured = MeasuredPrediction(measure_fn, focal)
    for one, other in zip(measured(variables, batch), predict_fn(variables, batch), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    measured(variables, batch)
    once, twice = (
        dataset_losses(jax.device_get(measure_fn(variables, batch, focal)[1]), config.loss),
        measured.losses(config.loss),
    )
    assert twice == pytest.approx(once) and np.isfinite(list(once.values())).all()


def test_no_image_and_no_object_is_no_division_by_zero():
    sums = np.zeros((3, 0, 2), np.float32)
    nothing = ImageLosses(*sums, np.zeros((0, 2, 5), np.float32), np.zeros(0, bool))
    assert set(dataset_losses(nothing, small_config().loss).values()) == {0.0}
    sums = np.array([[[1.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]]])
    empty = ImageLosses(*sums, np.zeros((1, 2, 5)), np.ones(1, bool))
    found = dataset_losses(empty, small_config().loss)
    assert found == {"loss": 2.0, "class_loss": 2.0, "box_loss": 0.0}
