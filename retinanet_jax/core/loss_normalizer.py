"""Normalisers: the divisor of a loss, a count of positive anchors that differs between projects.

A divisor depends only on the targets, so a batch that is processed in parts is divided by the same
numbers as a whole batch.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.loss_config import LossConfig

FIRST_POSITIVES = 50.0
"""Initial value of the running mean of positives per image: detectron2 has 100 for the two images
of a GPU."""
_MOMENTUM = 0.9


def running_positives(
    before: Float[ArrayLike, ""], labels: Int[ArrayLike, "b n"], valid: Bool[ArrayLike, "b"]
) -> Float[Array, ""]:
    """Updates the running mean of positives per image with one batch.

    Detectron2 (modeling/meta_arch/retinanet.py) takes 0.9 times the mean plus 0.1 times the number
    of the batch, at least 1. It counts the positives of one GPU; here, the number is the mean over
    the images of the batch, which does not depend on the size of the batch.
    """
    positives = jnp.sum((jnp.asarray(labels) >= 0) & jnp.asarray(valid)[:, None])
    mean = jnp.maximum(positives, 1) / jnp.maximum(jnp.sum(valid), 1)
    return _MOMENTUM * before + (1 - _MOMENTUM) * mean


def divisors(
    labels: Int[ArrayLike, "b n"],
    valid: Bool[ArrayLike, "b"],
    level_sizes: tuple[int, ...],
    config: LossConfig,
    running: Float[ArrayLike, ""] | None = None,
) -> Float[Array, "b _"]:
    """Returns the divisors of the losses of each image and level.

    With P positives in the batch, P_i in image i and P_l on level l:

        batch            max(P, 1)                     the paper, section 4
        batch_plus_one   P + 1                         TF's official models
        images_plus_one  P + images                    Detectron (roi_data/retinanet.py), on one GPU
        images_or_one    sum of max(P_i, 1)            MMDetection, on one GPU
        image            max(P_i, 1) * images          torchvision: a mean over the images
        level            max(P_l, 1)                   NVIDIA's retinanet-examples
        running          running mean * images         detectron2

    Args:
      labels: class index, NEGATIVE or IGNORE.
      valid: False for the images that pad the last batch; these are not counted.
      level_sizes: number of anchors of each level; their sum is n.
      config: configuration, of which the field `normalizer` is read.
      running: positives per image, from `running_positives`, for the normaliser 'running'.

    Returns:
      A column per level, or one column if it is the same for all levels.

    Raises:
      ValueError: `running` is missing.
    """
    if config.normalizer == "running" and running is None:
        raise ValueError("loss.normalizer: 'running' needs a running mean; pass `running`")
    valid = jnp.asarray(valid)
    positive = (jnp.asarray(labels) >= 0) & valid[:, None]
    images = jnp.maximum(jnp.sum(valid), 1)
    if config.normalizer == "batch":
        divisor = jnp.maximum(jnp.sum(positive), 1)
    elif config.normalizer == "batch_plus_one":
        divisor = jnp.sum(positive) + 1
    elif config.normalizer == "images_plus_one":
        divisor = jnp.sum(positive) + images
    elif config.normalizer == "images_or_one":
        divisor = jnp.sum(jnp.maximum(jnp.sum(positive, axis=1), valid))
        divisor = jnp.maximum(divisor, 1)
    elif config.normalizer == "image":
        divisor = jnp.maximum(jnp.sum(positive, axis=1, keepdims=True), 1) * images
    elif config.normalizer == "level":
        levels = split_levels(positive, level_sizes)
        divisor = jnp.maximum(jnp.stack([jnp.sum(level) for level in levels]), 1)
    else:
        divisor = running * images
    columns = len(level_sizes) if config.normalizer == "level" else 1
    return jnp.broadcast_to(divisor, (len(valid), columns)).astype(jnp.float32)


def normalized_sum(
    losses: Float[ArrayLike, "b n"], level_sizes: tuple[int, ...], divisor: Float[ArrayLike, "b _"]
) -> Float[Array, ""]:
    """Returns the sum of the losses of all anchors, divided by image and level."""
    if divisor.shape[1] == 1:  # the same for all levels; without a split, XLA fuses loss and sum
        return jnp.sum(jnp.sum(losses, axis=1) / divisor[:, 0])
    return jnp.sum(sum_levels(losses, level_sizes) / divisor)


def sum_levels(values: Num[ArrayLike, "b n"], level_sizes: tuple[int, ...]) -> Num[Array, "b l"]:
    """Sums over the anchors of each level."""
    return jnp.stack([jnp.sum(x, axis=1) for x in split_levels(values, level_sizes)], axis=1)


def split_levels(array: Shaped[ArrayLike, "b n"], level_sizes: tuple[int, ...]) -> list[Array]:
    """Splits an array over all anchors by level."""
    return jnp.split(array, np.cumsum(level_sizes)[:-1], axis=1)
