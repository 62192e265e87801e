"""Losses by level and by difficulty against closed forms, sorting and the training loss."""

import functools
import re

import jax
import numpy as np
import pytest
from small import small_batch, small_config

from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.retinanet import Predictions, build_model
from retinanet_jax.core.targets import IGNORE, NEGATIVE
from retinanet_jax.inference.predict import make_predict_fn
from retinanet_jax.reports.analysis.level_losses import (
    PredictAndRecord,
    loss_statistics,
    make_predict_and_measure_fn,
)
from retinanet_jax.reports.analysis.loss_distribution import (
    BINS,
    BINS_PER_UNIT,
    LIMIT,
    bin_losses,
    count_logits,
    cumulative_loss,
    hardest_share,
)
from retinanet_jax.training.batch_targets import assign_targets
from retinanet_jax.training.setup import init_variables


def histogram(signed):
    """Counts of logits x_t in the same bins."""
    edges = np.linspace(-LIMIT, LIMIT, BINS + 1)
    return np.histogram(np.clip(signed, -LIMIT, LIMIT), edges)[0]


def sorted_share(signed, gamma, share):
    """The share of the loss from the hardest `share`, by sorting losses in float64."""
    p = 1 / (1 + np.exp(-signed))
    loss = np.sort(-((1 - p) ** gamma) * np.log(p))[::-1]
    return loss[: round(share * len(loss))].sum() / loss.sum()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_shares_equal_those_of_sorted_losses(gamma, share):
    signed = np.random.default_rng(0).normal(4, 3, 100_000)
    found = hardest_share(histogram(signed), gamma, share)
    assert found == pytest.approx(sorted_share(signed, gamma, share), abs=2e-4)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_shares_equal_the_closed_form_for_uniform_probabilities(gamma):
    """The hardest share s of uniform p_t is p_t < s. Its loss is the integral of
    -(1 - p)^gamma log(p) from 0 to s: s - s log s for gamma 0, where the total is 1, and
    s - s log s + s^2 log s - s^2 / 2 - s^3 log s / 3 + s^3 / 9 for gamma 2, total 11 / 18."""
    p = (np.arange(400_000) + 0.5) / 400_000
    counts = histogram(np.log(p / (1 - p)))
    for s in (0.01, 0.1, 0.6):
        log = np.log(s)
        expected = s * (1 - log)
        if gamma:
            expected = s - s * log + s**2 * log - s**2 / 2 - s**3 * log / 3 + s**3 / 9
            expected *= 18 / 11
        assert hardest_share(counts, gamma, s) == pytest.approx(expected, abs=1e-3)


def test_equal_examples_have_equal_shares():
    counts = np.zeros(BINS, int)
    counts[2500] = 7
    for gamma in (0.0, 2.0):
        assert hardest_share(counts, gamma, 0.1) == pytest.approx(0.1)
    examples, loss = cumulative_loss(counts, 2.0)
    assert examples.tolist() == loss.tolist() == [0, 1]


def test_a_larger_gamma_moves_the_loss_to_hard_examples():
    counts = histogram(np.random.default_rng(1).normal(5, 2, 10_000))
    shares = [hardest_share(counts, gamma, 0.1) for gamma in (0.0, 0.5, 1.0, 2.0)]
    assert shares == sorted(shares) and shares[0] < shares[-1]
    examples, loss = cumulative_loss(counts, 1.0)
    assert (np.diff(examples) > 0).all() and (np.diff(loss) >= 0).all()
    assert examples[0] == loss[0] == 0 and examples[-1] == loss[-1] == pytest.approx(1)


def test_shares_of_no_examples_are_undefined():
    nothing = np.zeros(BINS, int)
    assert np.isnan(hardest_share(nothing, 2.0, 0.1)) and not len(cumulative_loss(nothing, 0.0)[0])


def test_losses_fall_over_the_bins():
    for gamma in (0.0, 0.5, 2.0):
        losses = bin_losses(gamma)
        assert (np.diff(losses) <= 0).all() and np.isfinite(losses).all()
    # For a very hard example the loss is -x_t.
    assert bin_losses(2.0)[0] == pytest.approx(LIMIT - 0.5 / BINS_PER_UNIT, rel=1e-5)


def test_logits_are_counted_by_kind_of_example():
    """Two classes, two levels with two anchors and one: positive, negative, ignored."""
    logits = (np.float32([[[1.5, -9.0], [-2.25, 3.0]]]), np.float32([[[7.0, 7.0]]]))
    labels = np.array([[0, NEGATIVE, IGNORE]])
    positive, negative = np.asarray(jax.jit(count_logits)(logits, labels))

    def place(signed):
        return int((signed + LIMIT) * BINS_PER_UNIT)

    assert np.flatnonzero(positive).tolist() == [place(1.5)] and positive.sum() == 1
    # A background anchor is an example for both classes, with x_t = -x.
    assert np.flatnonzero(negative).tolist() == [place(-3.0), place(2.25)] and negative.sum() == 2
    extreme = (np.float32([[[1e9], [-1e9]]]),)
    positive, negative = np.asarray(count_logits(extreme, np.array([[0, NEGATIVE]])))
    assert positive[-1] == negative[-1] == 1


@pytest.fixture(scope="module")
def network():
    config = small_config()
    model = build_model(config.model, 5, config.anchors.anchors_per_location)
    return config, model, init_variables(model, 0)


@pytest.mark.parametrize("fields", [{}, {"loss__normalizer": "image", "loss__box": "giou"}])
def test_levels_add_up_to_the_training_loss(fields):
    config, batch = small_config(**fields), small_batch()
    batch = batch._replace(valid=np.array([True, True, False, True]))
    anchors = anchors_for_image((64, 64), config.anchors)
    rng = np.random.default_rng(0)
    predictions = Predictions(
        *(
            tuple(rng.normal(-2, 2, (4, len(part), last)).astype(np.float32) for part in anchors)
            for last in (5, 4)
        )
    )
    found = jax.jit(functools.partial(loss_statistics, config=config))(predictions, batch)
    targets = assign_targets(anchors, batch, config)
    plain = small_config(**{**fields, "loss__normalizer": "batch"}).loss
    whole = retinanet_loss(*predictions, anchors, targets, batch.valid, plain)
    positives = found.positives.sum()
    assert positives == whole.num_positives > 0
    assert found.class_loss.sum() / positives == pytest.approx(float(whole.class_loss), rel=1e-5)
    assert found.box_loss.sum() / positives == pytest.approx(float(whole.box_loss), rel=1e-5)
    assert found.anchors.tolist() == [3 * len(part) for part in anchors]
    valid = np.asarray(targets.labels)[batch.valid]
    assert found.ignored.sum() == (valid == IGNORE).sum() > 0
    assert found.logits.sum(axis=1).tolist() == [positives, 5 * (valid == NEGATIVE).sum()]


def test_detections_equal_prediction_and_the_network_runs_once(network):
    config, model, variables = network
    batch = small_batch()
    compiled = make_predict_and_measure_fn(model, config).lower(variables, batch).compile()
    predict_fn = make_predict_fn(model, config)
    arguments = batch.images, batch.image_sizes, batch.original_sizes
    alone = predict_fn.compiled.lower(variables, *arguments).compile()

    def convolutions(program):
        return len(re.findall(r" convolution\(| custom-call.*conv", program.as_text()))

    assert convolutions(compiled) == convolutions(alone) > 0
    found, _ = compiled(variables, batch)
    expected = alone(variables, *arguments)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_statistics_of_batches_are_summed(network):
    config, model, variables = network
    predict_fn, compiled = (
        PredictAndRecord(model, config),
        make_predict_and_measure_fn(model, config),
    )
    for seed in (0, 1):
        predict_fn(variables, small_batch(seed))
    one = [compiled(variables, small_batch(seed))[1] for seed in (0, 1)]
    total = predict_fn.total()
    assert total.logits.dtype == np.int64 and total.class_loss.dtype == np.float64
    for field, first, second in zip(total, *one, strict=True):
        np.testing.assert_allclose(field, np.add(first, second), rtol=1e-5)
