"""Resizing inside an exported program: equal to the host's pixels to the last bit.

It repeats the arithmetic of OpenCV, PIL and numpy in data/pipeline/transforms.py. Detections depend
on it: bilinear interpolation in float32, in place of OpenCV's integers, changes every eighth pixel
by one grey level and moves boxes by hundredths of a pixel. Each resizing works along the columns,
then along the rows; a new pixel is the sum of old pixels times their weights, added in the order of
those libraries.

Coordinates are float64, as on the host.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.data.pipeline.canvas import PipelineConfig

Index = Int[Array, ""] | int


def fitted_sizes(
    sizes: Int[ArrayLike, "b 2"], canvas: tuple[int, int], settings: PipelineConfig
) -> Int[Array, "b 2"]:
    """(height, width) of images by data/pipeline/canvas.py::eval_size, or less, to fit the canvas.

    Args:
        sizes: height and width of each image, int32 pixels.
        canvas: height and width of the network's input in pixels.
        settings: min_side, max_side and eval_resizing are read.
    """
    with jax.enable_x64(True):
        sizes = jnp.asarray(sizes).astype(jnp.float64)
        sides = settings.min_side / sizes.min(1), settings.max_side / sizes.max(1)
        factors = jnp.stack([*sides, canvas[0] / sizes[:, 0], canvas[1] / sizes[:, 1]]).min(0)
        half = 0.0 if settings.eval_resizing == "torchvision" else 0.5
        fitted = jnp.floor(sizes * factors[:, None] + half).astype(jnp.int32)
        return jnp.maximum(fitted, jnp.int32(1))


def resize(
    images: UInt8[ArrayLike, "b h w 3"],
    old_sizes: Int[ArrayLike, "b 2"],
    new_sizes: Int[ArrayLike, "b 2"],
    canvas: tuple[int, int],
    how: str,
) -> Float[Array, "b h2 w2 3"]:
    """The images at their new sizes, in the top left corners of canvases; float32 up to 255.

    Args:
        images: images of `old_sizes` in their top left corners; h and w may be symbolic.
        old_sizes: height and width of each image, pixels, int32.
        new_sizes: height and width of each image after resizing, within the canvas, int32.
        canvas: h2, w2. Pixels outside the images are undefined.
        how: one of data/pipeline/transforms.py::RESIZINGS; only torchvision's gives fractions of
            grey levels.
    """
    with jax.enable_x64(True):
        old, new = jnp.asarray(old_sizes), jnp.asarray(new_sizes)
        skips = jnp.all(2 * new < old, axis=1)
        shrinkage = jnp.max(-(-old // new))  # old pixels per new pixel, the most of all images
        if how == "opencv":
            count = jnp.max(jnp.where(skips, shrinkage + 2, 0))
            averages = jax.vmap(functools.partial(_area, canvas, count))(images, old, new)
            resized = jax.vmap(functools.partial(_linear, canvas))(images, old, new)
            resized = jnp.where(skips[:, None, None, None], averages, resized)
        elif how == "detectron2":
            count = 2 * shrinkage + 2
            resized = jax.vmap(functools.partial(_by_pil, canvas, count))(images, old, new)
        else:
            one = _by_torch if how == "torchvision" else _linear
            resized = jax.vmap(functools.partial(one, canvas))(images, old, new)
        return resized.astype(jnp.float32)


class _Taps(NamedTuple):
    """The old pixels and weights of each new pixel of a line.

    first: the first old pixel; the others follow. Beyond an end, the last pixel is repeated.
    share: function of t: the weight of the t-th old pixel of each new pixel.
    count: number of old pixels, or more; may be traced. Weights of surplus pixels are 0.
    old: length of the old line in pixels.
    """

    first: Int[Array, " m"]
    share: Callable[[Index], Array]
    count: Index
    old: Int[Array, ""]


def _weigh(lines: Array, taps: _Taps, axis: int, add: Callable, start: Array) -> Array:
    """The sum of the old pixels times their shares, along an axis; `add(sum, pixels, shares)`."""

    def one(t, total):
        places = jnp.clip(taps.first + t, 0, taps.old - 1)
        pixels = jnp.take(lines, places, axis, mode="clip")
        return add(total, pixels, jnp.expand_dims(taps.share(t), (1, 2) if axis == 0 else (0, 2)))

    length = taps.first.shape[0]
    total = jnp.broadcast_to(start, (*lines.shape[:axis], length, *lines.shape[axis + 1 :]))
    if isinstance(taps.count, int):
        for t in range(taps.count):
            total = one(t, total)
        return total
    return jax.lax.fori_loop(jnp.int32(0), taps.count, one, total)


def _add_whole(total: Array, pixels: Array, shares: Array) -> Array:
    return total + pixels.astype(jnp.int32) * shares


def _add_rounded(total: Array, pixels: Array, shares: Array) -> Array:
    return total + _rounded(pixels.astype(jnp.float32) * shares)


def _rounded(product: Array) -> Array:
    """A non-negative product or quotient, rounded as on the host.

    Compilers fuse a product with a following sum and round once; XLA merges two divisions. The
    maximum with 0, which changes nothing, prevents both.
    """
    return jnp.maximum(product, 0)


def _pixels(length: int) -> Int[Array, " m"]:
    return jnp.arange(length, dtype=jnp.int32)


def _centres(length: int, scale: Float[Array, ""]) -> Float[Array, " m"]:
    """Centres of new pixels, in pixels of the old line; float64."""
    return (_pixels(length) + 0.5) * scale


def _linear(canvas, image, old, new):
    """OpenCV's 8-bit INTER_LINEAR: weights in 1/2048, sums of two products cut to 16 bits."""

    def taps(axis):
        centres = _centres(canvas[axis], old[axis] / new[axis].astype(jnp.float64))
        source = (centres - 0.5).astype(jnp.float32)
        first = jnp.floor(source)
        shares = source - first
        shares = [jnp.round(share * 2048).astype(jnp.int32) for share in (1 - shares, shares)]
        return _Taps(first.astype(jnp.int32), shares.__getitem__, 2, old[axis])

    def add_cut(total, pixels, shares):
        return total + jax.lax.div(shares * pixels, jnp.int32(65536))

    wide = _weigh(image, taps(1), 1, _add_whole, jnp.int32(0))
    wide = jax.lax.div(wide, jnp.int32(16))
    return jax.lax.div(_weigh(wide, taps(0), 0, add_cut, jnp.int32(2)), jnp.int32(4))


def _area(canvas, count, image, old, new):
    """OpenCV's INTER_AREA for shrinkage by more than 2; with a count of 0 the result is unused."""
    is_whole = jnp.all(old % new == 0)  # then OpenCV adds integers and divides once

    def taps(axis):
        scale = 1 / _rounded(new[axis] / old[axis].astype(jnp.float64))
        start = _rounded(_pixels(canvas[axis]) * scale)
        end, cell = start + scale, jnp.minimum(scale, old[axis] - start)
        last = jnp.minimum(jnp.floor(end), old[axis] - 1)
        whole = jnp.minimum(jnp.ceil(start), last)  # the first old pixel covered whole
        # OpenCV ignores parts this small as rounding errors.
        before, after = (jnp.where(cut > 1e-3, cut, 0) for cut in (whole - start, end - last))
        first = jnp.where(before > 0, whole - 1, whole)

        def share(t):
            covered = jnp.where(first + t == last, jnp.minimum(after, jnp.minimum(cell, 1)), 1)
            covered = jnp.where(first + t < whole, before, covered)
            shares = jnp.where(first + t > last, 0, covered / cell).astype(jnp.float32)
            return jnp.where(is_whole, jnp.float32(1) * (shares > 0), shares)

        return _Taps(first.astype(jnp.int32), share, count, old[axis])

    wide = _weigh(image, taps(1), 1, _add_rounded, jnp.float32(0))
    total = _weigh(wide, taps(0), 0, _add_rounded, jnp.float32(0))
    pixels = jnp.where(is_whole, (old[0] // new[0]) * (old[1] // new[1]), 1).astype(jnp.float32)
    return jnp.round(total * (1 / pixels)).astype(jnp.int32)


def _by_pil(canvas, count, image, old, new):
    """PIL's BILINEAR: a triangle filter, weights in 1/2**22, rounded after each axis."""

    def taps(axis):
        scale = old[axis] / new[axis].astype(jnp.float64)
        reach, centres = jnp.maximum(scale, 1), _centres(canvas[axis], scale)
        first = jnp.maximum((centres - reach + 0.5).astype(jnp.int32), 0)
        end = jnp.minimum((centres + reach + 0.5).astype(jnp.int32), old[axis])

        def weight(t):
            distance = jnp.abs(first + t - centres + 0.5) / reach
            return jnp.where(first + t < end, jnp.maximum(1 - distance, 0), 0)

        add = lambda t, total: total + weight(t)  # noqa: E731
        total = jax.lax.fori_loop(jnp.int32(0), count, add, jnp.zeros_like(centres))
        share = lambda t: (weight(t) / total * 2**22 + 0.5).astype(jnp.int32)  # noqa: E731
        return _Taps(first, share, count, old[axis])

    for axis in (1, 0):
        total = _weigh(image, taps(axis), axis, _add_whole, jnp.int32(2**21))
        image = jnp.minimum(jax.lax.div(total, jnp.int32(2**22)), 255)
    return image


def _by_torch(canvas, image, old, new):
    """See data/pipeline/transforms.py: float32 coordinates, not rounded to grey levels."""

    def taps(axis):
        scale = old[axis].astype(jnp.float32) / new[axis].astype(jnp.float32)
        centres = _centres(canvas[axis], scale.astype(jnp.float64))
        source = jnp.maximum((centres - 0.5).astype(jnp.float32), 0)
        first = jnp.minimum(source.astype(jnp.int32), old[axis] - 1)
        share = source - first.astype(jnp.float32)
        return _Taps(first, [1 - share, share].__getitem__, 2, old[axis])

    wide = _weigh(image, taps(1), 1, _add_rounded, jnp.float32(0))
    return _weigh(wide, taps(0), 0, _add_rounded, jnp.float32(0))
