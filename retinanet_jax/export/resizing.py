"""Resizing on the device, of pictures whose sizes are known only when the program runs.

What `data.transforms` does on the host before prediction, in matrices: a line of new pixels is a
matrix of shares times the line of old pixels, so that one product does the columns and one the
rows, and every convention is a way to fill the matrix. The host computes in whole numbers where
this computes in float32: whole grey levels come out the same or one apart.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from retinanet_jax.data.canvas import PipelineConfig
from retinanet_jax.models.layers import ArrayLike


def fitted_sizes(
    sizes: Int[ArrayLike, "b 2"], canvas: tuple[int, int], settings: PipelineConfig
) -> Int[Array, "b 2"]:
    """(height, width) that `data.canvas.eval_size` gives pictures, or less, to fit into the canvas.

    In whole numbers, hence exact at any size. The host's float64 makes a side of 799 out of
    torchvision's 800 now and then, and rounds rare halves down.

    Args:
        sizes: height and width of each picture, int32 pixels.
        canvas: height and width of the network's input in pixels.
        settings: min_side, max_side and eval_resizing are read.
    """
    sizes = jnp.asarray(sizes)
    # Each picture grows by the smallest of these factors: one per pair of wanted and old side.
    wanted = np.array([settings.min_side, settings.max_side, *canvas], np.int32)
    ends = sizes.min(1, keepdims=True), sizes.max(1, keepdims=True)
    old, sizes = jnp.concatenate([*ends, sizes], axis=1)[:, None], sizes[:, :, None]
    if settings.eval_resizing == "torchvision":
        fitted = sizes * wanted // old
    else:
        fitted = (2 * sizes * wanted + old) // (2 * old)
    return jnp.maximum(fitted.min(-1), 1)


def resize(
    images: UInt8[ArrayLike, "b h w 3"],
    old_sizes: Int[ArrayLike, "b 2"],
    new_sizes: Int[ArrayLike, "b 2"],
    canvas: tuple[int, int],
    how: str,
) -> Float[Array, "b h2 w2 3"]:
    """The pictures at their new sizes, in the top left corners of canvases; float32 up to 255.

    Args:
        images: pictures of `old_sizes` in their top left corners; h and w may be symbolic.
        old_sizes: height and width of each picture, pixels.
        new_sizes: height and width that each is to have, within the canvas.
        canvas: h2, w2. Outside of the pictures stands anything, NaN too.
        how: one of `data.transforms.RESIZINGS`; all but torchvision's give whole grey levels.
    """
    skips = jnp.all(2 * new_sizes < old_sizes, axis=1)

    def resize_one(image, old, new, skips):
        rows, columns = (
            _shares(old[axis], new[axis], image.shape[axis], canvas[axis], how, skips)
            for axis in (0, 1)
        )
        # HIGHEST: the default of GPUs and TPUs would round grey levels to 8 or 11 bits.
        multiply = lambda *args: jnp.einsum(*args, precision=jax.lax.Precision.HIGHEST)  # noqa: E731
        wide = multiply("Ww,hwc->hWc", columns, image.astype(jnp.float32))
        if how == "detectron2":  # PIL stores the image between its two passes
            wide = jnp.round(wide)
        resized = multiply("Hh,hWc->HWc", rows, wide)
        return resized if how == "torchvision" else jnp.round(resized)

    return jax.vmap(resize_one)(jnp.asarray(images), old_sizes, new_sizes, skips)


def _shares(old, new, length, new_length: int, how: str, skips) -> Float[Array, "m n"]:
    """The share of each of `length` old pixels of a line in each of `new_length` new ones.

    The first `old` and the first `new` are the picture's own; `length` may be symbolic.
    """
    scale = old.astype(jnp.float32) / new
    centre = jnp.clip((jnp.arange(new_length) + 0.5) * scale, 0.5, old - 0.5)[:, None]
    pixel = jnp.arange(length)
    if how == "detectron2":
        shares = _triangle(pixel + 0.5 - centre, jnp.maximum(scale, 1))
    elif how == "opencv":
        area = jnp.minimum(pixel + 1, centre + scale / 2) - jnp.maximum(pixel, centre - scale / 2)
        shares = jnp.where(skips, jnp.maximum(area, 0), _triangle(pixel + 0.5 - centre, 1))
    else:
        shares = _triangle(pixel + 0.5 - centre, 1)
    shares = jnp.where(pixel < old, shares, 0)
    return shares / shares.sum(1, keepdims=True)


def _triangle(distance, reach):
    """Bilinear interpolation's weight of a pixel at a distance; `reach` stretches it."""
    return jnp.maximum(1 - jnp.abs(distance) / reach, 0)
