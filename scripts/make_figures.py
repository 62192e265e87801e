"""Draws the figures of docs/ that need a detector of the built-in dataset, or no data at all.

python -m retinanet_jax.main --config=experiments/shapes.py --workdir=runs/shapes
python scripts/make_figures.py --model=runs/shapes --out=docs/figures
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image, ImageDraw

from retinanet_jax.core.anchors import anchors_for_image, cell_anchors, feature_shapes
from retinanet_jax.core.iou_matching import match_by_iou
from retinanet_jax.core.layers import normalize
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.core.targets import IGNORE
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.inference.detector import Detector
from retinanet_jax.inference.drawing import class_color, draw_boxes
from retinanet_jax.reports.analysis.analysis_plots import focal_loss_plot
from retinanet_jax.reports.plot_style import COLORS, styled, svg_file

SIDE, LARGE = 240, 400  # pixels of an image in a row
GAP = 8
WHITE, GREY = (255, 255, 255), (150, 150, 150)
HOST, DEVICE = "#eef3fb", "#fdf1e3"
STAGES = (  # column, row, color, lines
    (0, 0.5, HOST, ("records", "TFDS ArrayRecord", "or drawn")),
    (1, 0.5, HOST, ("images", "decode, crop, resize", "in threads, uint8")),
    (2, 0.5, HOST, ("batch", "of fixed shape,", "boxes padded")),
    (3, 0.5, DEVICE, ("network", "normalize, ResNet,", "FPN, two heads")),
    (4, 0.0, DEVICE, ("training", "match, focal loss,", "gradients, update")),
    (4, 1.0, DEVICE, ("detection", "top-k, decode,", "NMS")),
    (5, 1.0, HOST, ("evaluation", "COCO or VOC", "average precision")),
)
ARROWS = ((0, 1), (1, 2), (2, 3), (3, 4), (3, 5), (5, 6))


def row(images: list[UInt8[np.ndarray, "_h _w 3"]], side: int = SIDE) -> Image.Image:
    """Images side by side, each `side` pixels wide and high."""
    width = len(images) * (side + GAP) - GAP
    canvas = Image.new("RGB", (width, side), WHITE)
    for i, image in enumerate(images):
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
        canvas.paste(resized, (i * (side + GAP), 0))
    return canvas


def detections(detector: Detector, examples: list[Example]) -> Image.Image:
    """The detections with a score above .4."""
    names = detector.categories.names
    found = [detector(example.image, threshold=0.4) for example in examples]
    return row(
        [draw_boxes(f.image, f.boxes, f.labels, names, f.scores, long_side=LARGE) for f in found]
    )


def matched_anchors(detector: Detector, example: Example) -> Image.Image:
    """The anchors of one location, and the positive and ignored anchors of an image.

    Objects are white, positive anchors have the color of their class, ignored ones are gray.
    """
    config = detector.config
    size, factor = example.image.shape[:2], LARGE / example.image.shape[0]
    middle = np.tile(np.float32(size)[::-1] / 2, 2)
    cell = cell_anchors(config.anchors.min_level + 2, config.anchors) + middle
    anchors = np.concatenate(anchors_for_image(size, config.anchors))
    exists = np.ones(len(example.boxes), bool)
    state = np.asarray(match_by_iou(anchors, example.boxes, exists, config.matching.iou_rules))
    groups = [(anchors[state == IGNORE], GREY)]
    groups += [
        (anchors[state == number], class_color(int(label)))
        for number, label in enumerate(example.labels)
    ]
    return row(
        [
            outlined(example.image, [(cell, WHITE)], factor),
            outlined(example.image, [*groups, (example.boxes, WHITE)], factor),
        ],
        LARGE,
    )


def outlined(
    image: UInt8[np.ndarray, "h w 3"],
    groups: list[tuple[Float[np.ndarray, "_ 4"], tuple[int, int, int]]],
    factor: float,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The enlarged image, with groups of boxes in one color each."""
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    canvas = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    for outlines, color in groups:
        for box in (outlines * factor).tolist():
            draw.rectangle(box, outline=color, width=2 if color == WHITE else 1)
    return np.asarray(canvas)


def pyramid(detector: Detector, example: Example) -> Image.Image:
    """The image, and the highest class score at each location of each level, white for 1."""
    config, size = detector.config, example.image.shape[:2]
    per_location = config.anchors.anchors_per_location
    model = build_model(config.model, detector.categories.num_classes, per_location)
    inputs = normalize(example.image[None], config.pixels)
    found = model.apply(detector.variables, inputs, train=False).class_logits
    maps = []
    for (height, width), logits in zip(feature_shapes(size, config.anchors), found, strict=True):
        score = jax.nn.sigmoid(logits[0]).reshape(height, width, -1).max(axis=-1)
        shade = Image.fromarray(np.uint8(255 * np.sqrt(np.asarray(score))))
        enlarged = shade.resize((SIDE, SIDE), Image.Resampling.NEAREST)
        maps.append(np.asarray(enlarged.convert("RGB")))
    return row([example.image, *maps])


@styled
def pipeline() -> Figure:
    """The data flow as boxes and arrows: blue runs on the host, orange on the device."""
    width, height, across, down = 132, 64, 158, 80  # pixels of a box, and between boxes
    size = (5 * across + width + 2, down + height + 2)
    figure = Figure(figsize=(size[0] / 72, size[1] / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    axes.axis("off")
    for column, line, fill, (title, *texts) in STAGES:
        x, y = 1 + column * across, 1 + line * down
        shape = FancyBboxPatch((x + 6, y + 6), width - 12, height - 12, "round,pad=6", fc=fill)
        shape.set(ec="#8a94a3", lw=1)
        axes.add_patch(shape)
        for i, (text, weight) in enumerate([(title, "bold"), *((t, "normal") for t in texts)]):
            style = {"weight": weight, "ha": "center", "color": COLORS["ink"], "fontsize": 11}
            axes.text(x + width / 2, y + 19 + 18 * i, text, **style)
    for begin, end in ARROWS:
        (from_column, from_line, *_), (to_column, to_line, *_) = STAGES[begin], STAGES[end]
        start = (from_column * across + width + 5, 1 + from_line * down + height / 2)
        tip = (to_column * across - 3, 1 + to_line * down + height / 2)
        arrow = {"arrowstyle": "->", "color": "#5b6470", "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tip, start, arrowprops=arrow)
    return figure


def draw_images(model: str, out: Path) -> None:
    """Writes the figures that need a detector of experiments/shapes.py."""
    detector = Detector.from_checkpoint(model)
    data = detector.config.data
    source = load_dataset(data, data.eval_split).source
    # The first images of the evaluation split with several objects.
    examples = [e for e in (source[i] for i in range(30)) if len(e.boxes) >= 3][:4]
    # One image without boxes, to try the detector on.
    Image.fromarray(examples[0].image).save(out / "shapes.png", optimize=True)
    images = {
        "detections": detections(detector, examples),
        "anchors": matched_anchors(detector, examples[2]),
        "pyramid": pyramid(detector, examples[1]),
    }
    for name, image in images.items():
        few_colors = image.quantize(128, dither=Image.Dither.NONE)
        few_colors.save(out / f"{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="workdir of experiments/shapes.py; default: plots only")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    plots = {
        "focal_loss": (focal_loss_plot(), "The focal loss over p_t, for gamma from 0 to 5"),
        "pipeline": (pipeline(), "The data flow from records to training and detection"),
    }
    for name, (plot, label) in plots.items():
        (arguments.out / f"{name}.svg").write_text(svg_file(plot, label), encoding="utf-8")
    if arguments.model:
        draw_images(arguments.model, arguments.out)


if __name__ == "__main__":
    main()
