"""Draws boxes on images: a colour per class, legible labels, ground truth beside detections."""

import colorsys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.inference.label_fonts import drawable_name, label_font, text_runs

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

# Far apart in hue and lightness, and visible on photographs; further classes get hues a golden
# angle apart.
PALETTE: tuple[Color, ...] = (
    (64, 140, 255),
    (255, 76, 76),
    (255, 200, 40),
    (46, 204, 113),
    (216, 90, 255),
    (255, 140, 30),
    (30, 214, 220),
    (255, 110, 180),
    (160, 220, 40),
    (150, 120, 255),
)
PAPER, INK, FAINT = (255, 255, 255), (38, 42, 48), (120, 126, 134)
LABEL_OPACITY = 215


class Objects(NamedTuple):
    """The objects to draw on one image."""

    boxes: Float[ArrayLike, "d 4"]
    """Boxes, xyxy in pixels of the image."""
    labels: Int[ArrayLike, "d"]
    """Class indices, contiguous from 0; -1 is padding and not drawn."""
    scores: Float[ArrayLike, "d"] | None = None
    crowd: Bool[ArrayLike, "d"] | None = None
    """True if a box marks a crowd region; it is drawn thin, with a label that says so."""


def class_color(label: int) -> Color:
    """Returns the RGB colour of a class, which is the same in every image and run."""
    if label < len(PALETTE):
        return PALETTE[label]
    hue = 0.11 + 0.618034 * label
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, (0.75, 0.5)[label % 2], 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Float[ArrayLike, "d 4"],
    labels: Int[ArrayLike, "d"],
    names: Sequence[str],
    scores: Float[ArrayLike, "d"] | None = None,
    *,
    crowd: Bool[ArrayLike, "d"] | None = None,
    long_side: int | None = None,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Draws boxes on an image, each labelled with its class and score.

    Args:
      image: RGB image [h w 3].
      boxes: xyxy in pixels of `image`.
      labels: class indices, contiguous from 0; -1 is padding and not drawn.
      names: names of the classes.
      scores: scores of the boxes, in [0, 1]; higher ones are drawn over lower ones. None: no scores
        are shown.
      crowd: True for boxes of crowd regions; None: no box is one.
      long_side: pixels of the longer side of the result. None: the longer side of the image, but at
        least 480, so that labels are readable.

    Returns:
      A new RGB image of the same proportions.

    Raises:
      ValueError: a label has no name.
    """
    height, width = image.shape[:2]
    factor = (long_side or max(height, width, 480)) / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    canvas = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    drawn = _visible(Objects(boxes, labels, scores, crowd), names)
    scale = np.tile(np.array(size) / (width, height), 2)
    _draw(canvas, drawn._replace(boxes=drawn.boxes * scale), names)
    return np.asarray(canvas)


def detection_grid(
    rows: Sequence[tuple[UInt8[np.ndarray, "_h _w 3"], Any, Any]],
    names: Sequence[str],
    *,
    long_side: int = 520,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws several images in one: ground truth on the left, detections on the right.

    Args:
      rows: (image, ground truth, detections). The latter two are `Objects`, tuples in its order,
        or anything with its fields, such as data/pipeline/batch.py::Example or
        core/postprocess.py::Detections. Objects whose field `valid` is False are not drawn.
      names: names of the classes.
      long_side: pixels of the longer side of each image in the grid.

    Returns:
      An RGB image; from four rows on, two pairs are side by side.

    Raises:
      ValueError: there are no rows, or a label has no name.
    """
    if not rows:
        raise ValueError("detection_grid: no rows; give at least one (image, truth, detections)")
    pairs = [_pair(*row, names=names, long_side=long_side) for row in rows]
    columns = 1 if len(pairs) < 4 else 2
    lines = [pairs[i : i + columns] for i in range(0, len(pairs), columns)]
    gap = 28
    width = max(pair.width for pair in pairs)
    heights = [max(pair.height for pair in line) for line in lines]
    size = columns * width + (columns + 1) * gap, sum(heights) + (len(lines) + 1) * gap
    grid = Image.new("RGB", size, PAPER)
    for row, line in enumerate(lines):
        for column, pair in enumerate(line):
            top = gap * (row + 1) + sum(heights[:row])
            grid.paste(pair, (gap + column * (width + gap), top))
    return np.asarray(grid)


def _pair(image, truth, found, names, long_side: int) -> Image.Image:
    """Ground truth and detections of one image under their titles."""
    cells = []
    for title, noun, objects in (
        ("Ground truth", "object", _as_objects(truth)),
        ("Detections", "box", _as_objects(found)),
    ):
        boxes, labels, scores, crowd = objects
        drawn = draw_boxes(image, boxes, labels, names, scores, crowd=crowd, long_side=long_side)
        cells.append((title, _count(int((np.asarray(labels) >= 0).sum()), noun), drawn))
    height, width = cells[0][2].shape[:2]
    gap, header = 10, 26
    pair = Image.new("RGB", (2 * width + gap, height + header), PAPER)
    draw = ImageDraw.Draw(pair)
    for column, (title, count, drawn) in enumerate(cells):
        left = column * (width + gap)
        draw.text((left, header - 8), title, INK, label_font(16), anchor="ls")
        offset = draw.textlength(title, label_font(16)) + 10
        draw.text((left + offset, header - 8), count, FAINT, label_font(14), anchor="ls")
        pair.paste(Image.fromarray(drawn), (left, header))
    return pair


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("x") else "s")
    return f"{number or 'no'} {noun if number == 1 else plural}"


def _as_objects(value) -> Objects:
    if not hasattr(value, "boxes"):
        return Objects(*value)
    labels = np.asarray(value.labels)
    if hasattr(value, "valid"):
        labels = np.where(np.asarray(value.valid), labels, -1)
    return Objects(
        value.boxes, labels, getattr(value, "scores", None), getattr(value, "crowd", None)
    )


def _visible(objects: Objects, names: Sequence[str]) -> Objects:
    """The objects without padding, the highest score last, as numpy arrays."""
    boxes, labels = np.asarray(objects.boxes, np.float64), np.asarray(objects.labels)
    if labels.max(initial=-1) >= len(names):
        raise ValueError(f"labels: {labels.max()} has no name; there are {len(names)} names")
    # Without scores, large boxes first, so that small ones are drawn over them.
    size = -np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    order = np.argsort(
        size if objects.scores is None else np.asarray(objects.scores), kind="stable"
    )
    order = order[labels[order] >= 0]
    picked = [
        None if field is None else np.asarray(field)[order]
        for field in (objects.scores, objects.crowd)
    ]
    return Objects(boxes[order], labels[order], *picked)


def _draw(canvas: Image.Image, objects: Objects, names: Sequence[str]) -> None:
    """Draws outlines, then labels over them, into the canvas."""
    size = max(12, round(max(canvas.size) / 48))
    thickness = max(2, round(max(canvas.size) / 260))
    overlay = Image.new("RGBA", canvas.size)
    draw = ImageDraw.Draw(overlay)
    crowd = np.zeros(len(objects.labels), bool) if objects.crowd is None else objects.crowd
    corners = np.array([canvas.width, canvas.height] * 2) - 1
    boxes = np.clip(np.round(objects.boxes), 0, corners).astype(int)
    # A detector may return x2 < x1; such a box is drawn as a line.
    boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    for box, label, thin in zip(boxes, objects.labels, crowd, strict=True):
        _outline(draw, box, class_color(int(label)), 1 if thin else thickness)
    # A plate should cover neither other plates nor boxes hardly larger than a plate.
    small = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) < 3 * size
    taken = [(x1, y1, x2 + 1, y2 + 1) for x1, y1, x2, y2 in boxes[small].tolist()]
    # The best detection chooses the place of its label first.
    for i in reversed(range(len(boxes))):
        label = int(objects.labels[i])
        text = drawable_name(names[label], label) + (" (crowd)" if crowd[i] else "")
        if objects.scores is not None:
            text += f" {objects.scores[i]:.2f}"
        _label(draw, text, size, boxes[i].tolist(), class_color(label), taken)
    canvas.paste(overlay, mask=overlay)


def _outline(draw: ImageDraw.ImageDraw, box, color: Color, thickness: int) -> None:
    """A frame with a dark hairline around it, visible on bright and on dark ground."""
    x1, y1, x2, y2 = (int(value) for value in box)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0, 110))
    inset = min(thickness, max(1, (x2 - x1) // 3), max(1, (y2 - y1) // 3))
    draw.rectangle((x1, y1, x2, y2), outline=(*color, 255), width=inset)


def _label(draw: ImageDraw.ImageDraw, text: str, size: int, box, color: Color, taken: list) -> None:
    """Draws a name plate at the box, where it covers the least of `taken`, and adds it there."""
    runs = text_runs(text, size)
    lengths = [draw.textlength(piece, font) for piece, font in runs]
    ascent, descent = np.max([font.getmetrics() for _, font in runs], axis=0).tolist()
    width, height = round(sum(lengths)) + 6, ascent + descent + 1
    spots = (_inside(spot, width, height, draw.im.size) for spot in _spots(box, width, height))
    spot = _least_covering(spots, taken)
    taken.append(spot)
    draw.rectangle((spot[0], spot[1], spot[2] - 1, spot[3] - 1), fill=(*color, LABEL_OPACITY))
    bright = np.dot(color, (0.299, 0.587, 0.114)) > 125
    ink = (0, 0, 0, 255) if bright else (255, 255, 255, 255)
    x, y = spot[0] + 3, spot[1] + ascent + 1
    for (piece, font), length in zip(runs, lengths, strict=True):
        draw.text((x, y), piece, ink, font, anchor="ls")
        x += length


def _spots(box: list[int], width: int, height: int) -> Iterator[tuple[int, int]]:
    """Corners for a plate, the best first: at the corners of the box, along its sides, near."""
    x1, y1, x2, y2 = box
    right = x2 - width + 1
    yield from ((x1, y1 - height), (x1, y1), (x1, y2 + 1), (right, y1 - height), (right, y1))
    yield from ((x1, y2 - height + 1), (right, y2 + 1), (x2 + 1, y1), (x1 - width, y1))
    for y in range(y1 + height, y2 - height, height):
        yield from ((x1, y), (right, y), (x2 + 1, y), (x1 - width, y))
    for x in range(x1 + width, x2 - width, width):
        yield from ((x, y1 - height), (x, y2 + 1), (x, y1))
    for row in (2, 3):
        yield from ((x1, y1 - row * height), (x1, y2 + 1 + (row - 1) * height))


def _least_covering(spots: Iterable[Rectangle], taken: Sequence[Rectangle]) -> Rectangle:
    """The first of the spots that cover the least."""
    spots, others = np.array(list(spots)), np.reshape(taken, (-1, 4))
    low = np.maximum(spots[:, None, :2], others[:, :2])
    high = np.minimum(spots[:, None, 2:], others[:, 2:])
    covered = np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1)
    return tuple(spots[covered.argmin()].tolist())


def _inside(spot: tuple[int, int], width: int, height: int, size) -> Rectangle:
    """The plate's rectangle, moved into the image."""
    left = max(0, min(spot[0], size[0] - width))
    top = max(0, min(spot[1], size[1] - height))
    return left, top, left + width, top + height
