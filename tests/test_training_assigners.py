"""Training with an assigner that needs the network's predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_batch, small_config

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.assignment import assign
from retinanet_jax.core.layers import normalize
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training.setup import make_setup

CATEGORIES = Categories(tuple("abcde"), (1, 2, 3, 4, 5))


@pytest.mark.extended
def test_a_step_assigns_by_its_own_predictions():
    config = small_config(
        matching__assigner="task_aligned", loss__classification="quality_focal", model__prior=0.3
    )
    setup = make_setup(config, CATEGORIES, make_mesh(), print)
    batch, params = small_batch(rows=2), jax.tree.map(jnp.copy, setup.state.params)
    model = build_model(config.model, 5, config.anchors.anchors_per_location)
    anchors = anchors_for_image((64, 64), config.anchors)

    @jax.jit
    def loss(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        images = normalize(batch.images, config.pixels, batch.image_sizes)
        predictions, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        targets = [
            assign(
                np.concatenate(anchors),
                *objects,
                config.matching,
                predictions=jax.tree.map(lambda x, i=i: x[i], tuple(predictions)),
            )
            for i, objects in enumerate(
                zip(batch.gt_boxes, batch.gt_labels, batch.gt_crowd, strict=True)
            )
        ]
        targets = jax.tree.map(lambda *x: jnp.stack(x), *targets)
        return retinanet_loss(*predictions, anchors, targets, batch.valid, config.loss)

    wanted = loss(params, jax.tree.map(jnp.copy, setup.state.batch_stats))
    state, metrics = setup.step_fn(setup.state, batch, setup.focal, np.float32(0.01))
    assert wanted.num_positives > 10
    assert metrics["positives"] == wanted.num_positives / 2
    np.testing.assert_allclose(metrics["class_loss"], wanted.class_loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["box_loss"], wanted.box_loss, rtol=1e-4)
    assert not metrics["skipped"] and int(state.step) == 1


@pytest.mark.extended
def test_a_running_mean_counts_positives_by_predictions():
    """Detectron2's .9 and .1, from its 100 for two images."""
    config = small_config(matching__assigner="task_aligned", loss__normalizer="running")
    setup = make_setup(config, CATEGORIES, make_mesh(), print)
    state, metrics = setup.step_fn(setup.state, small_batch(rows=2), setup.focal, np.float32(0.01))
    assert metrics["positives"] > 1
    np.testing.assert_allclose(state.positives, 0.9 * 50 + 0.1 * metrics["positives"], rtol=1e-6)


def test_parts_of_a_batch_need_targets_before_the_network():
    with pytest.raises(ConfigError, match=r"not supported with matching.assigner 'task_aligned'"):
        small_config(matching__assigner="task_aligned", optimizer__accumulate_steps=2)
