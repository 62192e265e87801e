"""Augmentation on the device: flips and color maps, with parameters drawn on the host."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.layers import inside
from retinanet_jax.data.pipeline.batch import Batch


def augment_on_device(batch: Batch) -> Batch:
    """Returns the batch with its flips and color maps applied; unchanged if it has none.

    This is a pure function with static shapes. It processes each image by itself, so a batch that
    is split over devices stays split.
    """
    if batch.flip is not None:
        batch = mirror(batch, batch.flip)
    if batch.color is not None:
        batch = map_colors(batch, batch.color)
    return batch._replace(flip=None, color=None)


_compiled = jax.jit(augment_on_device)


def as_seen(batch: Batch) -> Batch:
    """Applies `augment_on_device` to a batch of numpy arrays, and returns numpy arrays."""
    return jax.device_get(_compiled(batch))


def mirror(batch: Batch, flip: Bool[ArrayLike, " b"]) -> Batch:
    """Flips images and boxes horizontally, within the image's part of the canvas."""

    def mirrored(image, width):
        # Flips the whole canvas, then rolls it, so that the padding is on the right again.
        return jnp.roll(image[:, ::-1], width - image.shape[1], axis=1)

    width = batch.image_sizes[:, 1:]
    images = jax.vmap(mirrored)(batch.images, width[:, 0].astype(jnp.int32))
    x1, y1, x2, y2 = jnp.moveaxis(batch.gt_boxes, -1, 0)
    boxes = jnp.stack([width - x2, y1, width - x1, y2], axis=-1)
    # Boxes of padding stay zero.
    moves = flip[:, None] & (batch.gt_labels >= 0)
    return batch._replace(
        images=jnp.where(flip[:, None, None, None], images, batch.images),
        gt_boxes=jnp.where(moves[..., None], boxes, batch.gt_boxes),
    )


def map_colors(batch: Batch, color: Float[ArrayLike, "b 3 4"]) -> Batch:
    """Applies the colour matrix of each image, clips to 0 .. 255 and rounds to uint8."""
    pixels = batch.images.astype(jnp.float32)
    matrix = color[:, None, None]
    # Written out, since a matrix product may run in less than float32 precision.
    mapped = matrix[..., 3] + sum(matrix[..., i] * pixels[..., i, None] for i in range(3))
    mapped = jnp.round(jnp.clip(mapped, 0, 255)).astype(batch.images.dtype)
    within = inside(batch.image_sizes, batch.images.shape[1:3])
    return batch._replace(images=jnp.where(within[..., None], mapped, 0))
