"""Which anchors of a batch are summed, and by what the sum is divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retinanet_jax.core import box_coder, boxes
from retinanet_jax.core.hard_examples import hardest
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.loss_normalizer import FIRST_POSITIVES, divisors, running_positives
from retinanet_jax.core.targets import IGNORE, NEGATIVE, Targets

SIZES = (12, 6)
LABELS = np.full((3, 18), NEGATIVE, np.int32)
LABELS[0, [0, 1, 13]] = 1
LABELS[1, 2:5] = IGNORE
LABELS[2, :] = 0
VALID = np.array([True, True, False])


# Normalisers.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("batch", [[3, 3], [3, 3]]),
        ("batch_plus_one", [[4, 4], [4, 4]]),
        ("images_plus_one", [[5, 5], [5, 5]]),
        ("images_or_one", [[4, 4], [4, 4]]),
        ("image", [[6, 6], [2, 2]]),
        ("level", [[2, 1], [2, 1]]),
        ("running", [[14, 14], [14, 14]]),
    ],
)
def test_divisors_by_hand(name, expected):
    config = LossConfig(normalizer=name)
    found = divisors(LABELS, VALID, SIZES, config, jnp.float32(7))
    assert found.shape[1] == (2 if name == "level" else 1)
    np.testing.assert_array_equal(np.broadcast_to(found, (3, 2))[:2], expected)


@pytest.mark.parametrize(
    ("name", "one_an_image"),
    [
        ("batch", False),
        ("batch_plus_one", False),
        ("images_plus_one", True),
        ("images_or_one", True),
        ("image", True),
        ("level", False),
    ],
)
def test_divisors_without_positives_are_not_zero(name, one_an_image):
    labels = np.full((2, 18), NEGATIVE, np.int32)
    for valid in (np.ones(2, bool), np.zeros(2, bool)):
        found = divisors(labels, valid, SIZES, LossConfig(normalizer=name))
        assert found.min() == (2 if one_an_image and valid.any() else 1)


def test_running_mean_of_the_positives():
    mean = running_positives(jnp.float32(FIRST_POSITIVES), LABELS, VALID)
    assert mean == pytest.approx(0.9 * 50 + 0.1 * 3 / 2)
    # Detectron2 counts a batch without positives as one.
    none = running_positives(jnp.float32(10), np.full_like(LABELS, NEGATIVE), VALID)
    assert none == pytest.approx(9 + 0.1 * 0.5)
    with pytest.raises(ValueError, match="'running' needs a running mean"):
        divisors(LABELS, VALID, SIZES, LossConfig(normalizer="running"))


# Hard examples.


def grid(rows=8, columns=8, side=12.0, step=4.0):
    """Anchors that overlap their neighbours."""
    y, x = np.meshgrid(np.arange(rows) * step, np.arange(columns) * step, indexing="ij")
    low = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.concatenate([low, low + side], axis=1).astype(np.float32)


ANCHORS = grid()


def greedy(losses, allowed, count, threshold):
    """NMS by falling loss, a box at a time."""
    iou = np.asarray(boxes.pairwise_iou(ANCHORS, ANCHORS))
    kept = []
    for i in sorted(np.flatnonzero(allowed), key=lambda i: -losses[i]):
        if len(kept) < count and all(iou[i, j] <= threshold for j in kept):
            kept.append(i)
    return kept


def example(seed, positives=6):
    rng = np.random.default_rng(seed)
    labels = np.full(len(ANCHORS), NEGATIVE, np.int32)
    labels[rng.choice(len(ANCHORS), 12, replace=False)] = IGNORE
    labels[rng.choice(np.flatnonzero(labels == NEGATIVE), positives, replace=False)] = 1
    return rng.exponential(1, len(ANCHORS)).astype(np.float32), labels


@pytest.mark.parametrize(("count", "threshold"), [(8, 0.7), (8, 0.3), (64, 0.5)])
def test_the_hardest_after_nms_are_chosen(count, threshold):
    pairs = [example(seed) for seed in range(3)]
    losses, labels = map(np.stack, zip(*pairs, strict=True))
    config = LossConfig(hard_examples=count, hard_examples_iou=threshold)
    chosen = np.asarray(hardest(losses, labels, ANCHORS, config))
    for image in range(3):
        kept = greedy(losses[image], labels[image] != IGNORE, count, threshold)
        np.testing.assert_array_equal(np.flatnonzero(chosen[image]), sorted(kept))
    assert chosen.sum() > 0


@pytest.mark.parametrize("positives", [0, 1, 6, 30])
def test_a_quota_bounds_the_negatives_by_the_positives(positives):
    losses, labels = example(5, positives)
    config = LossConfig(hard_examples=16, hard_examples_iou=0.7, negatives_per_positive=3)
    chosen = np.asarray(hardest(losses[None], labels[None], ANCHORS, config)[0])
    expected = greedy(losses, labels >= 0, 4, 0.7)
    expected += greedy(losses, labels == NEGATIVE, 3 * len(expected), 0.7)
    np.testing.assert_array_equal(np.flatnonzero(chosen), sorted(expected))
    assert (labels[chosen] >= 0).sum() == min(positives, 4)


def heads(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, (2, len(ANCHORS), 3)).astype(np.float32)
    deltas = rng.normal(0, 0.2, (2, len(ANCHORS), 4)).astype(np.float32)
    labels = np.stack([example(seed)[1], example(seed + 1)[1]])
    wanted = np.where(labels[..., None] >= 0, ANCHORS + np.float32([1, -1, 2, 0]), 0)
    return (logits,), (deltas,), Targets(labels, wanted.astype(np.float32))


def test_only_the_hardest_are_trained_on_in_classes_and_boxes():
    logits, deltas, targets = heads(0)
    config = LossConfig(classification="cross_entropy", alpha=None, hard_examples=10)

    def total(logits, deltas):
        found = retinanet_loss(logits, deltas, (ANCHORS,), targets, np.array([True, False]), config)
        return found.total, found

    gradients, found = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(logits, deltas)
    by_logits, by_deltas = (np.abs(g[0]).sum(-1) > 0 for g in gradients)
    assert by_logits[0].sum() == 10 and not by_logits[1].any()
    np.testing.assert_array_equal(by_deltas[0], by_logits[0] & (targets.labels[0] >= 0))
    # The divisor is that of all losses: every positive of the batch counts.
    assert found.num_positives == 6
    everything = retinanet_loss(
        logits, deltas, (ANCHORS,), targets, np.array([True, False]),
        LossConfig(classification="cross_entropy", alpha=None),
    )  # fmt: skip
    assert 0 < found.class_loss < everything.class_loss


@pytest.mark.parametrize(("box_weight", "hardest"), [(1.0, 1), (0.1, 0)])
def test_hardness_is_the_weighted_sum_of_both_losses(box_weight, hardest):
    """Anchor 0: cross entropy 3.05, right box. Anchor 1: cross entropy .69, L1 of the deltas 4."""
    anchors = np.float32([[0, 0, 10, 10], [50, 50, 60, 60]])
    targets = Targets(np.zeros((1, 2), np.int32), anchors[None])
    logits, deltas = np.float32([[[-3], [0]]]), np.float32([[[0] * 4, [1] * 4]])
    config = LossConfig(
        classification="cross_entropy",
        alpha=None,
        box="l1",
        box_weight=box_weight,
        hard_examples=1,
    )

    def total(logits):
        valid = np.ones(1, bool)
        return retinanet_loss((logits,), (deltas,), (anchors,), targets, valid, config).total

    gradient = jax.grad(total)(logits)[0, :, 0]
    np.testing.assert_array_equal(gradient != 0, np.arange(2) == hardest)


def test_default_box_loss_by_hand():
    """Smooth L1 with beta 1/9: deltas of .2 and .05 give .2 - 1/18 and .05^2 * 9 / 2."""
    anchors = np.float32([[0, 0, 10, 10]])
    deltas = np.float32([[[0.2, 0.05, 0, 0]]])
    targets = Targets(np.zeros((1, 1), np.int32), anchors[None])
    logits, valid = np.zeros((1, 1, 1), np.float32), np.ones(1, bool)
    found = retinanet_loss((logits,), (deltas,), (anchors,), targets, valid, LossConfig())
    assert float(found.box_loss) == pytest.approx(0.2 - 1 / 18 + 0.05**2 * 9 / 2, rel=1e-5)


def test_as_many_hard_examples_as_anchors_without_suppression_are_all():
    logits, deltas, targets = heads(3)
    arguments = logits, deltas, (ANCHORS,), targets, np.ones(2, bool)
    some = LossConfig(hard_examples=len(ANCHORS), hard_examples_iou=1.0)
    np.testing.assert_allclose(
        retinanet_loss(*arguments, some), retinanet_loss(*arguments, LossConfig()), rtol=1e-6
    )


# Quality targets.


@pytest.mark.parametrize("name", ["quality_focal", "varifocal"])
def test_quality_is_the_overlap_of_the_predicted_box_and_moves_no_box(name):
    logits, deltas, targets = heads(7)
    config = LossConfig(classification=name, alpha=0.75)
    valid = np.ones(2, bool)

    def class_loss(logits, deltas):
        return retinanet_loss(logits, deltas, (ANCHORS,), targets, valid, config).class_loss

    by_logits, by_deltas = jax.grad(class_loss, argnums=(0, 1))(logits, deltas)
    assert not by_deltas[0].any()
    # At the optimum of its logit the prediction is the overlap: there the gradient vanishes.
    overlap = np.asarray(boxes.iou(box_coder.decode(ANCHORS, deltas[0]), targets.boxes))
    image, anchor = np.argwhere(targets.labels >= 0)[0]
    logits[0][image, anchor, 1] = np.log(overlap[image, anchor] / (1 - overlap[image, anchor]))
    again, _ = jax.grad(class_loss, argnums=(0, 1))(logits, deltas)
    assert abs(by_logits[0][image, anchor, 1]) > 1e-4
    assert abs(again[0][image, anchor, 1]) < 1e-6
