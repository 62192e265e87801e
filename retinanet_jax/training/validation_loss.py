"""Computes the loss of an evaluation along with the detections, in one forward pass."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchor_losses import anchor_losses
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.focal import FocalParams
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.loss_normalizer import split_levels, sum_levels
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.core.retinanet import Predictions
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.inference.predict import find_objects, run_network
from retinanet_jax.runtime.mesh import fetch, on_own_rows
from retinanet_jax.runtime.traced_programs import stored
from retinanet_jax.training.batch_targets import assign_targets


class ImageLosses(NamedTuple):
    """Losses summed over the anchors of each image and pyramid level, not normalized.

    Padding rows, where `valid` is False, are 0.
    """

    class_loss: Float[ArrayLike, "b l"]
    box_loss: Float[ArrayLike, "b l"]  # without box_weight
    positives: Float[ArrayLike, "b l"]
    objects: Float[ArrayLike, "b l k"]  # of the positive anchors, by class; with box_weight
    valid: Bool[ArrayLike, " b"]


MeasureFn = Callable[[Any, Batch, FocalParams], tuple[Detections, ImageLosses]]


def make_measure_fn(model: nn.Module, config: Config, mesh: Mesh | None = None) -> MeasureFn:
    """Returns a compiled function of (variables, batch, focal); it compiles once per canvas.

    Images are preprocessed as in evaluation, and batch norm uses its running statistics; matching
    and loss are the same as in training. With a mesh, each device has its own images of the batch.
    """

    def measure(variables: Any, focal: FocalParams, batch: Batch):
        inputs = batch.images, batch.image_sizes
        predictions = run_network(variables, *inputs, model=model, config=config)
        sizes = batch.images.shape[1:3], batch.image_sizes, batch.original_sizes
        found = find_objects(predictions, *sizes, config)
        return found, image_losses(predictions, batch, focal, config)

    function = on_own_rows(measure, mesh, whole=2)
    compiled = jax.jit(function)
    run = stored(
        compiled,
        function,
        f"measure {model!r} {config!r}",
        pack=lambda results: tuple(map(tuple, results)),
        unpack=lambda _, packed: (Detections(*packed[0]), ImageLosses(*packed[1])),
    )

    def measure_fn(variables: Any, batch: Batch, focal: FocalParams):
        return run(variables, focal, batch)

    measure_fn.compiled, measure_fn.lower = compiled, run.lower
    return measure_fn


def image_losses(
    predictions: Predictions, batch: Batch, focal: FocalParams, config: Config
) -> ImageLosses:
    """Computes the losses of the network's predictions for a batch."""
    anchors = anchors_for_image(batch.images.shape[1:3], config.anchors)
    targets = assign_targets(anchors, batch, config, predictions=predictions)
    valid = jnp.asarray(batch.valid)
    parts = anchor_losses(*predictions, anchors, targets, valid, config.loss, focal=focal)
    positive = (targets.labels >= 0) & valid[:, None]
    sizes = tuple(len(level) for level in anchors)
    sums = (sum_levels(part, sizes) for part in (*parts, positive.astype(jnp.float32)))
    total = jnp.where(positive, parts.class_loss + config.loss.box_weight * parts.box_loss, 0)
    num_classes = predictions.class_logits[0].shape[-1]
    levels = zip(split_levels(total, sizes), split_levels(targets.labels, sizes), strict=True)
    objects = jnp.stack([_sum_classes(*level, num_classes) for level in levels], axis=1)
    return ImageLosses(*sums, objects, valid)


def _sum_classes(
    values: Float[Array, "b n"], labels: Int[Array, "b n"], num_classes: int
) -> Float[Array, "b k"]:
    """The sum of the values of each label; labels below 0 have the value 0."""
    add = functools.partial(jax.ops.segment_sum, num_segments=num_classes)
    return jax.vmap(add)(values, jnp.maximum(labels, 0))


class MeasuredPrediction:
    """A predict function for `evaluate` that records the losses of one evaluation.

    Args:
        measure_fn: compiled function from `make_measure_fn`.
        focal: focusing parameters of the loss.
    """

    def __init__(self, measure_fn: MeasureFn, focal: FocalParams):
        self._measure_fn, self._focal = measure_fn, focal
        self._recorded: list[ImageLosses] = []

    def __call__(self, variables: Any, batch: Batch) -> Detections:
        found, losses = self._measure_fn(variables, batch, self._focal)
        self._recorded.append(losses)  # small; stays on the device until the end
        return found

    def losses(self, config: LossConfig) -> dict[str, float]:
        """Returns total, class and box loss of all batches so far, normalized as one batch."""
        return dataset_losses(self.recorded(), config)

    def recorded(self) -> ImageLosses:
        """Returns the losses of all images so far, fetched from the devices."""
        recorded = fetch(self._recorded)
        return ImageLosses(*(np.concatenate(part) for part in zip(*recorded, strict=True)))


def dataset_losses(parts: ImageLosses, config: LossConfig) -> dict[str, float]:
    """Returns loss, class loss and box loss of all images as one batch, whatever their batches."""
    parts, divisor = _valid(parts, config)
    class_loss, box_loss = (float((part / divisor).sum()) for part in parts[:2])
    total = class_loss + config.box_weight * box_loss
    return {"loss": total, "class_loss": class_loss, "box_loss": box_loss}


def losses_by_level(parts: ImageLosses, config: LossConfig) -> list[float]:
    """Returns the part of each level, finest first, in the loss of `dataset_losses`."""
    parts, divisor = _valid(parts, config)
    total = parts.class_loss + config.box_weight * parts.box_loss
    return (total / divisor).sum(axis=0).tolist()


def losses_by_class(parts: ImageLosses, config: LossConfig) -> list[float]:
    """Returns the part of the anchors of each class's objects; the rest is the background's."""
    parts, divisor = _valid(parts, config)
    return (parts.objects / divisor[..., None]).sum(axis=(0, 1)).tolist()


def _valid(parts: ImageLosses, config: LossConfig) -> tuple[ImageLosses, Float[np.ndarray, "_ _"]]:
    """The rows of images in float64, and what they are divided by."""
    parts = ImageLosses(*(part[parts.valid].astype(np.float64) for part in parts))
    return parts, _divisor(parts.positives, config.normalizer)


def _divisor(positives: Float[np.ndarray, "n l"], normalizer: str) -> Float[np.ndarray, "_ _"]:
    """See core/loss_normalizer.py; the running mean is that of these images."""
    by_image = positives.sum(axis=1, keepdims=True)
    total, images = by_image.sum(), len(positives)
    if normalizer == "image":
        return np.maximum(by_image, 1) * images
    if normalizer == "level":
        return np.maximum(positives.sum(axis=0, keepdims=True), 1)
    divisors = {
        "batch": total,
        "batch_plus_one": total + 1,
        "images_plus_one": total + images,
        "images_or_one": np.maximum(by_image, 1).sum(),
        "running": total,
    }
    return np.full((1, 1), max(divisors[normalizer], 1.0))
