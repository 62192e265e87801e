"""What the loss of a network is made of, measured beside its detections in one pass over the data.

The images come as in evaluation, resized only; anchors are matched and losses taken as in training.
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
from retinanet_jax.core.layers import normalize
from retinanet_jax.core.loss import sum_levels
from retinanet_jax.core.matching import IGNORE
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.core.retinanet import Predictions
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.inference.predict import predict
from retinanet_jax.reports.analysis.loss_distribution import count_logits
from retinanet_jax.training.step import assign_targets

ArrayLike = Array | np.ndarray


class Measures(NamedTuple):
    """Sums over images; per level of the pyramid, lowest first, but for `logits`.

    class_loss, box_loss: of all anchors, not normalised; the latter without box_weight.
    anchors: in all; padding of the canvas has some, too.
    positives, ignored: of these.
    logits: histograms of `count_logits`.
    """

    class_loss: Float[ArrayLike, " l"]
    box_loss: Float[ArrayLike, " l"]
    anchors: Int[ArrayLike, " l"]
    positives: Int[ArrayLike, " l"]
    ignored: Int[ArrayLike, " l"]
    logits: Int[ArrayLike, "2 bins"]


class Measured:
    """A predict function for `evaluate` that keeps the Measures of the batches on its way."""

    def __init__(self, model: nn.Module, config: Config):
        self._compiled = make_measure_fn(model, config)
        self._kept: list[Measures] = []

    def __call__(self, variables: Any, batch: Batch) -> Detections:
        found, measures = self._compiled(variables, batch)
        self._kept.append(measures)  # small, and on the device until they are asked for
        return found

    def total(self) -> Measures:
        """The sums over all batches so far."""
        kept = jax.device_get(self._kept)
        # In 64 bits: 10^9 decisions of a class are soon there.
        return Measures(*(_sum(np.stack(parts)) for parts in zip(*kept, strict=True)))


def _sum(parts: np.ndarray) -> np.ndarray:
    return parts.sum(axis=0, dtype=np.int64 if parts.dtype.kind == "i" else np.float64)


def make_measure_fn(
    model: nn.Module, config: Config
) -> Callable[[Any, Batch], tuple[Detections, Measures]]:
    """Detections and Measures of a batch, compiled; one compilation per canvas."""

    def run(variables: Any, batch: Batch) -> tuple[Detections, Measures]:
        found = predict(
            variables,
            batch.images,
            batch.image_sizes,
            batch.original_sizes,
            model=model,
            config=config,
        )
        # The same network on the same images as inside `predict`: XLA computes it once.
        inputs = normalize(batch.images, config.pixels, batch.image_sizes)
        return found, measure(model.apply(variables, inputs, train=False), batch, config)

    return jax.jit(run)


def measure(predictions: Predictions, batch: Batch, config: Config) -> Measures:
    """The Measures of a batch.

    Args:
      predictions: of the network on the batch.
      batch: with its boxes; rows that are not valid count nothing.
      config: sections anchors, matching and loss are read.
    """
    anchors = anchors_for_image(batch.images.shape[1:3], config.anchors)
    sizes = tuple(len(level) for level in anchors)
    targets = assign_targets(anchors, batch, config)
    valid = jnp.asarray(batch.valid)
    labels = jnp.where(valid[:, None], targets.labels, IGNORE)
    losses = anchor_losses(*predictions, anchors, targets, valid, config.loss)

    def add_up(values: Array) -> Array:
        return sum_levels(values, sizes).sum(axis=0, dtype=values.dtype)

    counts = (jnp.broadcast_to(valid[:, None], labels.shape), labels >= 0)
    ignored = (labels == IGNORE) & valid[:, None]
    counted = (add_up(count.astype(jnp.int32)) for count in (*counts, ignored))
    return Measures(*map(add_up, losses), *counted, count_logits(predictions.class_logits, labels))
