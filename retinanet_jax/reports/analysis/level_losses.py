"""The loss by pyramid level, computed along with the detections in one pass over the data.

Images are preprocessed as in evaluation. Matching and loss are the same as in training.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchor_losses import anchor_losses
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.loss_normalizer import sum_levels
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.core.retinanet import Predictions
from retinanet_jax.core.targets import IGNORE
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.inference.predict import find_objects, run_network
from retinanet_jax.reports.analysis.loss_distribution import count_logits
from retinanet_jax.training.batch_targets import assign_targets


class LossStatistics(NamedTuple):
    """Sums over images, per level of the pyramid from the finest on.

    class_loss, box_loss: sums over the anchors, not normalized; box_loss without box_weight.
    anchors: number of anchors, including those on the padding of the canvas.
    positives, ignored: numbers of positive and of ignored anchors.
    logits: histograms of `count_logits`, over all levels.
    """

    class_loss: Float[ArrayLike, " l"]
    box_loss: Float[ArrayLike, " l"]
    anchors: Int[ArrayLike, " l"]
    positives: Int[ArrayLike, " l"]
    ignored: Int[ArrayLike, " l"]
    logits: Int[ArrayLike, "2 bins"]


class PredictAndRecord:
    """A predict function for `evaluate` that also records the LossStatistics of each batch."""

    def __init__(self, model: nn.Module, config: Config):
        self._compiled = make_predict_and_measure_fn(model, config)
        self._recorded: list[LossStatistics] = []

    def __call__(self, variables: Any, batch: Batch) -> Detections:
        found, statistics = self._compiled(variables, batch)
        self._recorded.append(statistics)  # small; stays on the device until `total`
        return found

    def total(self) -> LossStatistics:
        """The sums over all batches so far, in 64 bits: examples soon number 10^9."""
        recorded = jax.device_get(self._recorded)
        return LossStatistics(*(_sum(np.stack(parts)) for parts in zip(*recorded, strict=True)))


def _sum(parts: np.ndarray) -> np.ndarray:
    return parts.sum(axis=0, dtype=np.int64 if parts.dtype.kind == "i" else np.float64)


def make_predict_and_measure_fn(
    model: nn.Module, config: Config
) -> Callable[[Any, Batch], tuple[Detections, LossStatistics]]:
    """A compiled function of (variables, batch). It compiles once per canvas."""

    def run(variables: Any, batch: Batch) -> tuple[Detections, LossStatistics]:
        inputs = batch.images, batch.image_sizes
        predictions = run_network(variables, *inputs, model=model, config=config)
        sizes = batch.images.shape[1:3], batch.image_sizes, batch.original_sizes
        found = find_objects(predictions, *sizes, config)
        return found, loss_statistics(predictions, batch, config)

    return jax.jit(run)


def loss_statistics(predictions: Predictions, batch: Batch, config: Config) -> LossStatistics:
    """The LossStatistics of a batch.

    Args:
      predictions: predictions of the network for the batch.
      batch: rows that are not valid do not count.
      config: configuration; the sections anchors, matching and loss are used.
    """
    anchors = anchors_for_image(batch.images.shape[1:3], config.anchors)
    sizes = tuple(len(level) for level in anchors)
    targets = assign_targets(anchors, batch, config, predictions=predictions)
    valid = jnp.asarray(batch.valid)
    labels = jnp.where(valid[:, None], targets.labels, IGNORE)
    losses = anchor_losses(*predictions, anchors, targets, valid, config.loss)

    def add_up(values: Array) -> Array:
        return sum_levels(values, sizes).sum(axis=0, dtype=values.dtype)

    counts = (jnp.broadcast_to(valid[:, None], labels.shape), labels >= 0)
    ignored = (labels == IGNORE) & valid[:, None]
    counted = (add_up(count.astype(jnp.int32)) for count in (*counts, ignored))
    return LossStatistics(
        *map(add_up, losses), *counted, count_logits(predictions.class_logits, labels)
    )
