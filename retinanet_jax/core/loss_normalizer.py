"""By what the losses of a batch are divided: the positive anchors, as each project counts them.

The divisors follow from the targets alone, so that they are known before the network runs, and a
batch that is worked off in parts is divided by the same numbers as one worked off at once.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core.loss_config import LossConfig

ArrayLike = Array | np.ndarray

FIRST_POSITIVES = 50.0
"""Positives of an image that a running mean starts with: detectron2's 100 for a GPU's two
images."""
_MOMENTUM = 0.9


def running_positives(
    before: Float[ArrayLike, ""], labels: Int[ArrayLike, "b n"], valid: Bool[ArrayLike, "b"]
) -> Float[Array, ""]:
    """The running mean of the positives of an image after one more batch.

    Detectron2 (modeling/meta_arch/retinanet.py): a tenth of the batch's own number, at least 1,
    added to nine tenths of the mean. Detectron2 counts the images of one GPU; here it is the mean
    over the images of the batch, so that it does not depend on how many there are.
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
    """By what the losses of each image and level are divided before all are added up.

    With P positives in all, P_i in image i and P_l on level l of all images:

        batch            max(P, 1)                     the paper, section 4
        batch_plus_one   P + 1                         TF's official models
        images_plus_one  P + images                    Detectron (roi_data/retinanet.py), on one GPU
        images_or_one    sum of max(P_i, 1)            MMDetection, on one GPU
        image            max(P_i, 1) * images          torchvision: a mean over the images
        level            max(P_l, 1)                   NVIDIA's retinanet-examples
        running          running mean * images         detectron2

    Args:
      labels: class index, NEGATIVE or IGNORE.
      valid: False for the images that fill up the last batch; these count nowhere.
      level_sizes: anchors of each level; their sum is n.
      config: field `normalizer`.
      running: positives of an image, from `running_positives`; 'running' needs it.

    Returns:
      A column for each level, or one alone where it is the same for all.

    Raises:
      ValueError: the running mean is missing.
    """
    if config.normalizer == "running" and running is None:
        raise ValueError("loss.normalizer: 'running' is a state of training; pass `running`")
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
        levels = jnp.split(positive, np.cumsum(level_sizes)[:-1], axis=1)
        divisor = jnp.maximum(jnp.stack([jnp.sum(level) for level in levels]), 1)
    else:
        divisor = running * images
    columns = len(level_sizes) if config.normalizer == "level" else 1
    return jnp.broadcast_to(divisor, (len(valid), columns)).astype(jnp.float32)
