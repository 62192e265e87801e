"""Images of the inspection page: the output of the pipeline, and boxes with their best anchors.

An image is a JPEG inside an SVG that draws the boxes. They stay sharp at every size, and the
reader's browser draws the class names, so that any script works.
"""

import base64
import io
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from retinanet_jax.data.pipeline.batch import HostBatch
from retinanet_jax.data.pipeline.prefetch import Batches
from retinanet_jax.inference.drawing import class_color
from retinanet_jax.reports.html_page import TIMES, Html, shortened, tag
from retinanet_jax.training.device_augmentation import as_seen

LONG_SIDE = 512  # pixels of a stored image; a page does not show more
QUALITY = 80
MAX_DRAWN = 300  # boxes on an image, the largest; more would hide the image
FEW_BOXES = 8  # up to so many boxes all show their names, more only if the name fits


def jpeg_uri(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """The image as a data URI, at most LONG_SIDE pixels wide and high."""
    resized = Image.fromarray(image)
    resized.thumbnail((LONG_SIDE, LONG_SIDE))
    data = io.BytesIO()
    resized.save(data, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def css_color(label: int) -> str:
    """The color of a class, the same as in all images of this package."""
    return "#{:02x}{:02x}{:02x}".format(*class_color(label))


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "m 4"],
    labels: Int[np.ndarray, " m"],
    crowd: Bool[np.ndarray, " m"],
    names: Sequence[str],
) -> Html:
    """An SVG of an image with its boxes in the colors of their classes.

    Args:
      boxes: xyxy in pixels of `image`. At most the MAX_DRAWN largest are drawn.
      labels: contiguous from 0.
      crowd: drawn dashed.
      names: names of the classes.
    """
    height, width = image.shape[:2]
    sides = boxes[:, 2:] - boxes[:, :2]
    # Large boxes first, so that small ones are on top.
    order = np.argsort(-sides.prod(axis=1), kind="stable")[:MAX_DRAWN]
    outlines: list[Html] = []
    labels_drawn: list[Html] = []
    letters = max(height, width) / 32
    for box, label, is_crowd in zip(boxes[order], labels[order], crowd[order], strict=True):
        name = names[label] + (" (crowd)" if is_crowd else "")
        shown = shortened(name)
        kind = "crowd" if is_crowd else None
        outlines.append(_rectangle(box, name, css_color(int(label)), kind))
        if len(order) <= FEW_BOXES or box[2] - box[0] > 0.6 * letters * len(shown):
            labels_drawn.append(_name(box, shown, int(label), letters, width))
    return _image(image, outlines + labels_drawn)


def _image(image: UInt8[np.ndarray, "h w 3"], drawn: Sequence[Html]) -> Html:
    height, width = image.shape[:2]
    photo = tag("image", href=jpeg_uri(image), width=width, height=height)
    view = f"0 0 {width} {height}"
    return tag("svg", photo, drawn, viewBox=view, class_="image", role="img")


def _rectangle(box: Float[np.ndarray, "4"], name: str, color: str, kind: str | None) -> Html:
    x1, y1, x2, y2 = (float(value) for value in box)
    place = {"x": x1, "y": y1, "width": max(x2 - x1, 0.0), "height": max(y2 - y1, 0.0)}
    return tag("rect", tag("title", name), **place, stroke=color, class_=kind)


def _name(box: Float[np.ndarray, "4"], name: str, label: int, letters: float, width: int) -> Html:
    """A name in the color of its class: in the corner of the box, or above a small box."""
    x1, y1, x2, y2 = (float(value) for value in box)
    length = 0.6 * letters * len(name)
    if x2 - x1 > length and y2 - y1 > 3 * letters:
        y = y1 + 0.95 * letters
    else:
        y = y1 - 0.35 * letters if y1 > 1.3 * letters else y2 + 1.05 * letters
    x = max(0.0, min(x1, width - length)) + 0.3 * letters
    bright = np.dot(class_color(label), (0.299, 0.587, 0.114)) > 125
    kind = "bright" if bright else None
    return tag("text", name, x=x, y=y, stroke=css_color(label), font_size=letters, class_=kind)


def first_images(batches: Batches, names: Sequence[str], count: int) -> list[Html]:
    """Figures of the first `count` images of some batches."""
    # By index: the threads of an iterator would prefetch batches that are not shown.
    some = (batch_images(batches[step], names) for step in range(len(batches)))
    return list(itertools.islice(itertools.chain.from_iterable(some), count))


def batch_images(host: HostBatch, names: Sequence[str]) -> list[Html]:
    """Figures of the images of a batch on their canvases, as the network gets them."""
    host = host._replace(batch=as_seen(host.batch))
    return [_figure(host, row, names) for row in np.flatnonzero(host.batch.valid).tolist()]


def _figure(host: HostBatch, row: int, names: Sequence[str]) -> Html:
    batch = host.batch
    image = batch.images[row]
    real = batch.gt_labels[row] >= 0
    parts = (batch.gt_boxes[row], batch.gt_labels[row], batch.gt_crowd[row])
    drawn = overlay(image.astype(np.uint8), *(part[real] for part in parts), names)
    height, width = (int(side) for side in batch.image_sizes[row])
    size = f"{width}{TIMES}{height}"
    if (height, width) != image.shape[:2]:
        size += f" on {image.shape[1]}{TIMES}{image.shape[0]}"
    count = int(real.sum())
    caption = f"image {host.image_ids[row]} · {count or 'no'} {'box' if count == 1 else 'boxes'}"
    return tag("figure", drawn, tag("figcaption", f"{caption} · {size}"))


def anchor_crop(
    image: UInt8[np.ndarray, "h w 3"],
    box: Float[np.ndarray, "4"],
    label: int,
    anchor: Float[np.ndarray, "4"],
    names: Sequence[str],
) -> Html:
    """A crop around a box, with its best anchor drawn dashed.

    Args:
      image: resized as for the network; black beyond its borders.
      box, anchor: xyxy in pixels of `image`.
    """
    low, high = np.minimum(box[:2], anchor[:2]), np.maximum(box[2:], anchor[2:])
    side = max(32, int(1.5 * (high - low).max()))
    left, top = (int(value) for value in np.floor((low + high - side) / 2))
    crop = np.zeros((side, side, 3), np.uint8)
    y1, x1 = max(top, 0), max(left, 0)
    seen = image[y1 : max(top + side, 0), x1 : max(left + side, 0)]
    crop[y1 - top : y1 - top + seen.shape[0], x1 - left : x1 - left + seen.shape[1]] = seen
    corner = np.array([left, top, left, top], np.float32)
    drawn = (
        _rectangle(box - corner, names[label], css_color(label), None),
        _rectangle(anchor - corner, "best anchor", "#ffffff", "anchor"),
    )
    return _image(crop, drawn)
