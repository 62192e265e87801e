"""The class loss as one number: both layouts agree, and so do their gradients."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retinanet_jax.core import class_loss_total
from retinanet_jax.core.focal import CLASS_LOSSES, ClassLoss, FocalParams, focal_loss
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.targets import IGNORE, NEGATIVE, Targets

GRIDS = ((3, 5), (2, 3))
ANCHORS = 2  # of a location
SIZES = tuple(h * w * ANCHORS for h, w in GRIDS)


def example(num_classes, batch=3):
    """Logits of each level and labels, with every class number that could round."""
    rng = np.random.default_rng(num_classes)
    logits = tuple(
        rng.normal(-1, 3, (batch, size, num_classes)).astype(np.float32) for size in SIZES
    )
    labels = rng.integers(0, num_classes, (batch, sum(SIZES))).astype(np.int32)
    labels[:, :2] = num_classes - 1, min(257, num_classes - 1)
    labels[:, 2::3], labels[:, 3::4] = NEGATIVE, IGNORE
    return logits, labels


@pytest.mark.parametrize("num_classes", [1, 5, 256, 700])
@pytest.mark.parametrize("columns", [1, 2])
def test_both_layouts_agree(num_classes, columns):
    logits, labels = example(num_classes)
    divisor = np.arange(1, 1 + 3 * columns, dtype=np.float32).reshape(3, columns)
    focusing = FocalParams(jnp.float32(1.7), jnp.float32(0.3), jnp.float32(0))

    def loss(layout):
        function = functools.partial(layout, GRIDS, "focal")
        return jax.jit(jax.value_and_grad(function))((logits, focusing), (labels, divisor))

    expected = loss(class_loss_total.loss_by_anchor)
    found = loss(class_loss_total.loss_in_lanes)
    assert expected[0] > 0 and expected[1][1].gamma != 0 and expected[1][1].alpha != 0
    scale = max(np.abs(x).max() for x in expected[1][0])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6 * scale), found, expected
    )


@pytest.mark.parametrize("fields", [{}, {"normalizer": "level", "alpha": None}])
def test_a_loss_with_grids_equals_one_without(fields):
    logits, labels = example(4)
    rng = np.random.default_rng(0)
    anchors = tuple(np.float32([0, 0, 8, 8]) + rng.normal(0, 1, (n, 4)) for n in SIZES)
    anchors = tuple(level.astype(np.float32) for level in anchors)
    deltas = tuple(rng.normal(0, 1, (3, n, 4)).astype(np.float32) for n in SIZES)
    boxes = np.broadcast_to(np.float32([1, 2, 7, 9]), (3, sum(SIZES), 4))
    targets, valid = Targets(labels, boxes), np.array([True, True, False])
    config = LossConfig(**fields)

    @functools.partial(jax.jit, static_argnums=0)
    def found(grids, logits, deltas, gamma):
        def total(logits, deltas, gamma):
            focal = config.focal._replace(gamma=gamma)
            losses = retinanet_loss(
                *(logits, deltas, anchors, targets, valid, config), focal=focal, grids=grids
            )
            return 3 * losses.total, losses

        return jax.grad(total, argnums=(0, 1, 2), has_aux=True)(logits, deltas, gamma)

    arguments = logits, deltas, jnp.float32(2)
    with_grids, without = (found(grids, *arguments) for grids in (GRIDS, None))
    assert not any(level[2].any() for level in with_grids[0][0])
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9), with_grids, without
    )


@pytest.mark.parametrize(
    "of_each",
    [
        lambda x, y, f: -jax.nn.log_softmax(x) * y,
        lambda x, y, f: jnp.arange(1.0, 5) * focal_loss(x, y, gamma=f.gamma),  # a weight per class
    ],
)
def test_a_loss_that_is_not_elementwise_gets_the_classes_on_a_tpu_as_well(monkeypatch, of_each):
    logits, labels = example(4)
    shapes = []

    def recorded(x, y, focal):
        shapes.append(x.shape[-1])
        return of_each(x, y, focal)

    monkeypatch.setitem(CLASS_LOSSES, "mine", ClassLoss(recorded))

    @jax.jit
    def total(logits):
        divisor = jnp.ones((3, 1))
        focal = FocalParams(2.0)
        return class_loss_total.total_class_loss(logits, labels, divisor, GRIDS, "mine", focal)

    jax.jit(jax.grad(total)).trace(logits).lower(lowering_platforms=("tpu",))
    assert set(shapes) == {4}
    monkeypatch.setitem(CLASS_LOSSES, "mine", ClassLoss(recorded, elementwise=True))
    with contextlib.suppress(TypeError, ValueError):  # two anchors, four classes
        jax.jit(lambda x: total.__wrapped__(x)).trace(logits)
    assert 4 * ANCHORS in shapes
