"""A split in numbers: objects by class and size, their coverage, what matching makes of them."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from retinanet_jax.anchors import anchors_for_image
from retinanet_jax.config import Config
from retinanet_jax.data.batch import PADDING_LABEL
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.inspection.coverage import Coverage, measure
from retinanet_jax.inspection.objects import SIZES, Fitted, Objects, fit_objects, read_objects
from retinanet_jax.matching import IGNORE, assign

MATCHED_IMAGES = 16  # on which matching itself is run: up to a second each at 800x1344 on a CPU


@dataclasses.dataclass(frozen=True)
class Split:
    """A split as read, without its crowds, as the network sees it, and how anchors cover that.

    Attributes:
      name: 'train[:90%]', as the config names it.
      dataset: where it is from.
      everything: all objects.
      objects: those that are no crowds.
      fitted: boxes of `objects` as the network sees them.
      coverage: of these boxes.
    """

    name: str
    dataset: Dataset
    everything: Objects
    objects: Objects
    fitted: Fitted
    coverage: Coverage

    @property
    def canvases(self) -> Int[np.ndarray, "m 2"]:
        """The canvas of each of `objects`."""
        return self.fitted.canvases[self.objects.image]


def read_split(name: str, dataset: Dataset, config: Config, max_images: int) -> Split:
    """Reads and measures a split, or max_images of it."""
    everything = read_objects(dataset.source, max_images)
    objects = everything.select(~everything.crowd)
    fitted = fit_objects(objects, config.pipeline)
    coverage = measure(fitted.boxes, fitted.canvases[objects.image], config.anchors)
    return Split(name, dataset, everything, objects, fitted, coverage)


class ClassCount(NamedTuple):
    """Objects of one class in one split, crowds left out.

    objects: their number.
    by_size: small, medium, large.
    images: pictures that have some.
    uncovered: how many have no anchor (see inspection.coverage).
    """

    objects: int
    by_size: tuple[int, int, int]
    images: int
    uncovered: int


def count_classes(split: Split, num_classes: int, config: Config) -> list[ClassCount]:
    """The counts of every class."""
    objects, uncovered = split.objects, split.coverage.uncovered(config.matching)
    size_classes = objects.size_classes
    counts = []
    for label in range(num_classes):
        here = objects.labels == label
        by_size = np.bincount(size_classes[here], minlength=len(SIZES))
        images = len(np.unique(objects.image[here]))
        counts.append(
            ClassCount(int(here.sum()), tuple(by_size.tolist()), images, int(uncovered[here].sum()))
        )
    return counts


class LevelCount(NamedTuple):
    """One level of the pyramid, per picture.

    anchors, positive, ignored: mean numbers of anchors.
    boxes: share of all boxes of the split whose best anchor is here.
    """

    level: int
    anchors: float
    positive: float
    ignored: float
    boxes: float


def count_levels(split: Split, config: Config) -> list[LevelCount]:
    """What matching, as in training, makes of the anchors of MATCHED_IMAGES pictures."""
    levels, everything = config.anchors.levels, split.everything
    fitted = fit_objects(everything, config.pipeline)
    step = max(1, -(-len(fitted.sizes) // MATCHED_IMAGES))
    numbers = range(0, len(fitted.sizes), step)
    rows = [_largest(fitted, everything, number, config.pipeline.max_boxes) for number in numbers]
    # One number of boxes, so that each canvas compiles once.
    most = max(map(len, rows), default=0)
    matching = jax.jit(functools.partial(assign, config=config.matching))
    counts = np.zeros((3, len(levels)))
    for number, row in zip(numbers, rows, strict=True):
        anchors = anchors_for_image(tuple(fitted.canvases[number].tolist()), config.anchors)
        padding = (0, most - len(row))
        boxes = np.pad(fitted.boxes[row], (padding, (0, 0)))
        labels = np.pad(everything.labels[row], padding, constant_values=PADDING_LABEL)
        crowd = np.pad(everything.crowd[row], padding)
        found = np.asarray(matching(np.concatenate(anchors), boxes, labels, crowd).labels)
        ends = np.cumsum([len(part) for part in anchors])[:-1]
        for place, part in enumerate(np.split(found, ends)):
            counts[:, place] += len(part), (part >= 0).sum(), (part == IGNORE).sum()
    counts /= max(1, len(rows))
    shares = np.bincount(split.coverage.level, minlength=len(levels))
    shares = shares / max(1, len(split.coverage.level))
    return [LevelCount(*row) for row in zip(levels, *counts.tolist(), shares.tolist(), strict=True)]


def _largest(fitted: Fitted, objects: Objects, number: int, max_boxes: int) -> np.ndarray:
    """The places of the objects of a picture that a batch keeps."""
    row = np.flatnonzero(objects.image == number)
    sides = fitted.boxes[row, 2:] - fitted.boxes[row, :2]
    return row[np.argsort(-sides.prod(axis=1), kind="stable")[:max_boxes]]


def facts(split: Split) -> list[tuple[str, str]]:
    """Names and values, as text, for a table."""
    everything, objects = split.everything, split.objects
    counts = np.bincount(objects.image, minlength=len(everything.numbers))
    empty = np.setdiff1d(np.arange(len(everything.numbers)), everything.image)
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    zoom = np.sqrt((split.fitted.sizes / everything.sizes).prod(axis=1))
    read = f"{everything.total:,}"
    if len(everything.numbers) < everything.total:
        read += f", of which {len(everything.numbers):,} were read"
    return [
        ("pictures", read),
        ("without any object", f"{len(empty):,}"),
        ("objects", f"{len(objects.labels):,}"),
        ("crowd regions", f"{int(everything.crowd.sum()):,}"),
        ("objects on a picture", _spread(counts)),
        ("width of pictures", _spread(everything.sizes[:, 1], " px")),
        ("height of pictures", _spread(everything.sizes[:, 0], " px")),
        ("width of boxes", _spread(sides[:, 0], " px")),
        ("height of boxes", _spread(sides[:, 1], " px")),
        ("zoom to the network's input", _spread(zoom, digits=2)),
    ]


def _spread(values: np.ndarray, unit: str = "", digits: int = 0) -> str:
    """Median, smallest and largest."""
    if not len(values):
        return "none"
    low, middle, high = (f"{v:,.{digits}f}" for v in np.percentile(values, [0, 50, 100]))
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low} to {high})"
