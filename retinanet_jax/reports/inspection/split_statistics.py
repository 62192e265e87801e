"""A split in numbers: objects by class and size, coverage by the anchors, matched anchors."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.assignment import assign
from retinanet_jax.core.matching import ASSIGNERS
from retinanet_jax.core.targets import IGNORE
from retinanet_jax.data.anchor_coverage import STATES, Coverage, box_coverage
from retinanet_jax.data.data_errors import Report
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.object_table import (
    SIZES,
    Fitted,
    ObjectTable,
    box_sides,
    fit_objects,
    read_objects,
)
from retinanet_jax.data.pipeline.batch import PADDING_LABEL

MATCHED_IMAGES = 16  # for which matching is run: up to a second each at 800x1344 on a CPU


@dataclasses.dataclass(frozen=True)
class Split:
    """A split: its objects, as stored and as resized for the network, and their coverage.

    Attributes:
      name: name of the split in the config, for example 'train[:90%]'.
      dataset: dataset with its images.
      everything: all objects.
      objects: without crowds.
      fitted: `objects` resized as for the network.
      coverage: coverage of these boxes by the anchors.
    """

    name: str
    dataset: Dataset
    everything: ObjectTable
    objects: ObjectTable
    fitted: Fitted
    coverage: Coverage


def read_split(name: str, dataset: Dataset, config: Config, max_images: int) -> Split:
    """Reads the objects of a split, or of max_images of it, and computes their coverage."""
    everything = read_objects(dataset.source, max_images)
    objects = everything.select(~everything.crowd)
    fitted = fit_objects(objects, config.pipeline)
    coverage = box_coverage(fitted.boxes, fitted.canvases[objects.image], config.anchors)
    return Split(name, dataset, everything, objects, fitted, coverage)


class ClassCount(NamedTuple):
    """Number of objects of one class in one split, without crowds.

    objects: all.
    by_size: small, medium, large.
    images: number of images with such objects.
    by_state: in the order of anchor_coverage.STATES.
    """

    objects: int
    by_size: tuple[int, int, int]
    images: int
    by_state: tuple[int, int, int]


def count_classes(split: Split, num_classes: int, config: Config) -> list[ClassCount]:
    """The counts of each class."""
    objects, size_classes = split.objects, split.objects.size_classes
    states = split.coverage.states(config.matching)
    counts = []
    for label in range(num_classes):
        here = objects.labels == label
        by_size = np.bincount(size_classes[here], minlength=len(SIZES)).tolist()
        by_state = np.bincount(states[here], minlength=len(STATES)).tolist()
        images = len(np.unique(objects.image[here]))
        counts.append(ClassCount(int(here.sum()), tuple(by_size), images, tuple(by_state)))
    return counts


class LevelCount(NamedTuple):
    """One level of the pyramid.

    anchors, positive, ignored: mean number of anchors per image.
    boxes: share of all boxes of the split whose best anchor is on this level.
    """

    level: int
    anchors: float
    positive: float
    ignored: float
    boxes: float


def count_levels(split: Split, config: Config) -> list[LevelCount]:
    """Counts the anchors of MATCHED_IMAGES images after the matching of training."""
    levels, everything = config.anchors.levels, split.everything
    fitted = fit_objects(everything, config.pipeline)
    step = max(1, -(-len(fitted.sizes) // MATCHED_IMAGES))
    numbers = range(0, len(fitted.sizes), step)
    rows = [_largest(fitted, everything, number, config.pipeline.max_boxes) for number in numbers]
    # The same number of boxes for all images, so that each canvas compiles once.
    most = max(map(len, rows), default=0)
    matching = config.matching
    if ASSIGNERS[matching.assigner].needs_predictions:  # there is no network yet
        matching = dataclasses.replace(matching, assigner="iou")
    assign_image = jax.jit(
        functools.partial(
            assign, config=matching, anchors_per_location=config.anchors.anchors_per_location
        ),
        static_argnames="level_sizes",
    )
    counts = np.zeros((3, len(levels)))
    for number, row in zip(numbers, rows, strict=True):
        anchors = anchors_for_image(tuple(fitted.canvases[number].tolist()), config.anchors)
        padding = (0, most - len(row))
        boxes = np.pad(fitted.boxes[row], (padding, (0, 0)))
        labels = np.pad(everything.labels[row], padding, constant_values=PADDING_LABEL)
        crowd = np.pad(everything.crowd[row], padding)
        sizes = tuple(len(part) for part in anchors)
        objects = boxes, labels, crowd
        targets = assign_image(np.concatenate(anchors), *objects, level_sizes=sizes)
        found = np.asarray(targets.labels)
        ends = np.cumsum(sizes)[:-1]
        for place, part in enumerate(np.split(found, ends)):
            counts[:, place] += len(part), (part >= 0).sum(), (part == IGNORE).sum()
    counts /= max(1, len(rows))
    shares = np.bincount(split.coverage.level, minlength=len(levels))
    shares = shares / max(1, len(split.coverage.level))
    return [LevelCount(*row) for row in zip(levels, *counts.tolist(), shares.tolist(), strict=True)]


def _largest(fitted: Fitted, objects: ObjectTable, number: int, max_boxes: int) -> np.ndarray:
    """Indices of the objects of an image that fit into a batch."""
    row = np.flatnonzero(objects.image == number)
    areas = box_sides(fitted.boxes[row]).prod(axis=1)
    return row[np.argsort(-areas, kind="stable")[:max_boxes]]


def reports(splits: Sequence[Split]) -> list[tuple[str, Report]]:
    """Names of splits and reports of skipped or changed entries. A shared report is listed once."""
    train, evaluation = ((split.name, split.dataset.report) for split in splits)
    if train[1].counts == evaluation[1].counts:
        train, evaluation = (f"{train[0]} and {evaluation[0]}", train[1]), ("", Report())
    return [(name, report) for name, report in (train, evaluation) if report.total]


def facts(split: Split) -> list[tuple[str, str]]:
    """Rows of a table: names and values as text."""
    everything, objects = split.everything, split.objects
    counts = np.bincount(objects.image, minlength=len(everything.numbers))
    empty = np.setdiff1d(np.arange(len(everything.numbers)), everything.image)
    sides = box_sides(objects.boxes)
    zoom = np.sqrt((split.fitted.sizes / everything.sizes).prod(axis=1))
    read = f"{everything.total:,}"
    if len(everything.numbers) < everything.total:
        read += f", {len(everything.numbers):,} of them read"
    return [
        ("images", read),
        ("images without objects", f"{len(empty):,}"),
        ("objects", f"{len(objects.labels):,}"),
        ("crowd regions", f"{int(everything.crowd.sum()):,}"),
        ("objects per image", _spread(counts)),
        ("width of images", _spread(everything.sizes[:, 1], " px")),
        ("height of images", _spread(everything.sizes[:, 0], " px")),
        ("width of boxes", _spread(sides[:, 0], " px")),
        ("height of boxes", _spread(sides[:, 1], " px")),
        ("resize factor", _spread(zoom, digits=2)),
    ]


def _spread(values: np.ndarray, unit: str = "", digits: int = 0) -> str:
    """Median, minimum and maximum."""
    if not len(values):
        return "none"
    low, middle, high = (f"{v:,.{digits}f}" for v in np.percentile(values, [0, 50, 100]))
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low} to {high})"
