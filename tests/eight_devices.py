"""Run by test_training_devices.py with eight simulated devices: one step on 1 and on 8."""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from collectives import collectives
from small import small_batch, small_config
from small_detector import WIDE, small_detector

from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.hard_examples import hardest
from retinanet_jax.core.retinanet import Predictions
from retinanet_jax.data.pipeline.batch import IDENTITY_COLOR
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.mesh import make_mesh, map_images, to_devices
from retinanet_jax.training.batch_targets import assign_targets
from retinanet_jax.training.device_augmentation import augment_on_device
from retinanet_jax.training.setup import make_setup

COLORS = IDENTITY_COLOR + np.random.default_rng(0).normal(0, 0.2, (8, 3, 4)).astype(np.float32)


def augmentation_without_communication() -> bool:
    """Whether flips and color maps of a batch over all devices need no communication."""
    marked = small_batch(rows=8)._replace(flip=np.ones(8, bool), color=COLORS)
    batch = to_devices(marked, make_mesh())
    program = jax.jit(augment_on_device).lower(batch).compile().as_text()
    assert "f32[1,64,64,3]" in program
    return not collectives(program)


def matching_and_mining_without_communication() -> bool:
    """Whether targets and hard examples of a batch over all devices are found image by image."""
    config, mesh = small_config(loss__hard_examples=16), make_mesh()
    others = [small_config(matching__assigner=name) for name in ("atss", "task_aligned")]
    batch = to_devices(small_batch(rows=8), mesh)
    anchors = anchors_for_image(batch.images.shape[1:3], config.anchors)

    def choose(batch, losses, predictions):
        labels = assign_targets(anchors, batch, config, mesh).labels
        assigned = [assign_targets(anchors, batch, c, mesh, predictions).labels for c in others]
        map_over_devices = functools.partial(map_images, mesh=mesh)
        every = jnp.concatenate(anchors)
        return hardest(losses, labels, every, config.loss, map_over_devices), assigned

    losses = to_devices(np.zeros((8, sum(map(len, anchors))), np.float32), mesh)
    outputs = [tuple(np.zeros((8, len(a), n), np.float32) for a in anchors) for n in (5, 4)]
    predictions = to_devices(Predictions(*outputs), mesh)
    program = jax.jit(choose).lower(batch, losses, predictions).compile().as_text()
    assert "while" in program  # NMS is in it
    return not collectives(program)


def detector_on_all_devices() -> dict[str, float | int]:
    """Devices that a Detector runs on; largest difference of boxes and scores from one image."""
    detector, rng = small_detector(batch_size=8), np.random.default_rng(0)
    images = list(rng.integers(0, 256, (8, *WIDE, 3), np.uint8))
    differences = []
    for one, image in zip(detector(images), images, strict=True):
        alone = detector(image)
        assert len(alone) == len(one) > 0
        differences += [
            np.abs(alone.boxes - one.boxes).max(),
            np.abs(alone.scores - one.scores).max(),
        ]
    found = detector._launch(small_batch(rows=8))
    return {"devices": len(found.boxes.sharding.device_set), "difference": float(max(differences))}


def largest_difference(a, b) -> float:
    """Over all arrays: the largest norm of a difference, relative to the array's norm.

    A ReLU that rounding puts on the other side of zero changes single numbers by much more.
    """
    differences = jax.tree.map(
        lambda x, y: float(np.linalg.norm(x - y) / (np.linalg.norm(x) + 1e-12)), a, b
    )
    return max(jax.tree.leaves(differences))


def one_step(devices: int, norm: str):
    """Metrics, gradients (as the update of plain gradient descent) and batch statistics."""
    mesh = make_mesh(jax.devices()[:devices])
    config = small_config(
        train__batch_size=8,
        model__norm=norm,
        optimizer__momentum=0.0,
        optimizer__weight_decay=0.0,
        optimizer__learning_rate=1.0,
        optimizer__base_batch_size=8,
    )
    setup = make_setup(config, Categories(tuple("abcde"), (1, 2, 3, 4, 5)), mesh, print)
    before = jax.tree.map(jnp.copy, setup.state.params)
    batch = small_batch(rows=8)
    # One image without boxes and one full of them: positives differ from device to device.
    batch.gt_labels[0] = -1
    batch = batch._replace(flip=np.arange(8) % 3 == 0, color=COLORS)
    batch, rate = to_devices(batch, mesh), setup.schedule(0)
    state, metrics = setup.step_fn(setup.state, batch, setup.focal, rate)
    gradients = jax.tree.map(lambda b, a: np.asarray(b) - np.asarray(a), before, state.params)
    return jax.device_get(metrics), gradients, jax.device_get(state.batch_stats)


result = {
    "augmentation_stays": augmentation_without_communication(),
    "matching_stays": matching_and_mining_without_communication(),
    "detector": detector_on_all_devices(),
}
for norm in ("batch", "group"):
    (metrics_1, gradients_1, stats_1), (metrics_8, gradients_8, stats_8) = (
        one_step(1, norm),
        one_step(8, norm),
    )
    result[norm] = {
        "loss": [float(metrics_1["loss"]), float(metrics_8["loss"])],
        "gradients": largest_difference(gradients_1, gradients_8),
        "statistics": largest_difference(stats_1, stats_8) if stats_1 else 0.0,
    }
json.dump({"devices": jax.device_count(), **result}, sys.stdout)
