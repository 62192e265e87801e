"""Targets of the anchors of a batch, and the divisors of its losses."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.core.assignment import assign_batch
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.loss_normalizer import divisors, running_positives
from retinanet_jax.core.matching import ASSIGNERS
from retinanet_jax.core.retinanet import Predictions
from retinanet_jax.core.targets import Targets
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.runtime.mesh import on_own_rows
from retinanet_jax.training.accumulation import split_into_parts
from retinanet_jax.training.device_augmentation import augment_on_device


def assign_targets(
    anchors: tuple[np.ndarray, ...],
    batch: Batch,
    config: Config,
    mesh: Mesh | None = None,
    predictions: Predictions | None = None,
) -> Targets:
    """Returns the targets of every anchor of every image: Targets with leading axes b, n.

    With a mesh, each device matches its own images. Assigners with needs_predictions need the
    predictions of the batch.
    """

    def match(*objects_and_predictions: Any) -> Targets:
        *objects, predictions = objects_and_predictions
        return assign_batch(
            np.concatenate(anchors),
            *objects,
            config.matching,
            level_sizes=tuple(len(level) for level in anchors),
            anchors_per_location=config.anchors.anchors_per_location,
            predictions=predictions,
        )

    if not ASSIGNERS[config.matching.assigner].needs_predictions:
        predictions = None
    objects = batch.gt_boxes, batch.gt_labels, batch.gt_crowd
    return on_own_rows(match, mesh)(*objects, jax.lax.stop_gradient(predictions))


def labels_by_part(
    anchors: tuple[np.ndarray, ...], batch: Batch, config: Config, mesh: Mesh
) -> jax.Array:
    """Returns the labels [b n] of `assign_targets` for a batch before augmentation.

    Only one part of the batch at a time is augmented and has boxes. The labels need a fifth of the
    memory of the targets.
    """

    def labels_of(part: Batch) -> jax.Array:
        return assign_targets(anchors, augment_on_device(part), config, mesh).labels

    parts = config.optimizer.accumulate_steps
    labels = jax.lax.map(labels_of, split_into_parts(batch, parts))
    return labels.swapaxes(0, 1).reshape(batch.valid.shape[0], -1)


def normalizer(
    positives: jax.Array | None,
    labels: jax.Array,
    valid: jax.Array,
    anchors: tuple[np.ndarray, ...],
    config: LossConfig,
) -> tuple[jax.Array | None, jax.Array]:
    """Returns TrainState.positives after a batch with these labels, and its loss divisors."""
    if positives is not None:
        positives = running_positives(positives, labels, valid)
    sizes = tuple(len(level) for level in anchors)
    return positives, divisors(labels, valid, sizes, config, positives)
