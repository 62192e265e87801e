"""Anchors fitted to a dataset: size, scales and ratios with a better coverage.

Redmon and Farhadi choose the shapes of anchors by clustering the boxes of the training set with IoU
as the measure (YOLO9000, arXiv 1612.08242, section 2, "Dimension Clusters"). Here a location has
all pairs of some scales and some ratios, on every level, so that the shapes are not free; the same
measure is raised one scale or ratio at a time, with all others fixed, until none helps. What is
measured is the true best IoU over the true grid, offsets included.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.data.anchor_coverage import Coverage, cover, iou_by_shape
from retinanet_jax.data.object_table import ObjectTable, fit_objects

# Sides of square anchors in strides, and ratios (height over width), among which is chosen.
SIDES = tuple(np.geomspace(0.5, 16, 31).tolist())
RATIOS = tuple(np.geomspace(1 / 8, 8, 25).tolist())
MAX_BOXES = 4000  # of each half; more take time and change nothing
STARTS = 4  # random ones beside the configured anchors
# Another set is proposed only if so many more of the held-out boxes get an anchor, one with more
# anchors only if it does that much better than one without.
WORTH_CHANGING, WORTH_MORE_ANCHORS = 0.01, 0.05


class Covered(NamedTuple):
    """Coverage in numbers: shares of the boxes by the two thresholds of matching, mean best IoU."""

    positive: float
    uncovered: float
    mean_iou: float


class Fit(NamedTuple):
    """What came out.

    config: the proposed anchors; the configured ones where nothing better was found.
    before, after: coverage on the half of the images to which anchors were fitted.
    held_out_before, held_out_after: on the other half.
    """

    config: AnchorConfig
    before: Covered
    after: Covered
    held_out_before: Covered
    held_out_after: Covered


def fit_anchors(objects: ObjectTable, config: Config, seed: int = 0) -> Fit:
    """Searches anchors for objects as the network sees them; the same for the same arguments.

    Half of the images are fitted to and the other half judges, also whether anything is proposed
    at all: the coverage there never falls below that of the configured anchors. Their number stays
    as configured, unless one scale or one ratio more covers WORTH_MORE_ANCHORS more of its boxes.

    Args:
      objects: of the training set; crowds are left out.
      config: sections anchors, matching and pipeline are read.
      seed: of the halves and of the random starts.

    Raises:
      ValueError: fewer than two images have objects.
    """
    rng = np.random.default_rng(seed)
    fitted, held_out = _halves(objects.select(~objects.crowd), rng)
    search = _Search(fitted, config, rng)

    def covered(half: ObjectTable, anchors: AnchorConfig) -> Covered:
        return _summary(cover(half, config.pipeline, anchors), config)

    before = best = config.anchors
    judged = covered(held_out, best)
    for more_scales, more_ratios in ((0, 0), (1, 0), (0, 1)):
        found = search.best(len(before.scales) + more_scales, len(before.ratios) + more_ratios)
        score = covered(held_out, found)
        gain = WORTH_MORE_ANCHORS if more_scales or more_ratios else WORTH_CHANGING
        if score.positive >= judged.positive + gain:
            best, judged = found, score
    return Fit(
        best, covered(fitted, before), covered(fitted, best), covered(held_out, before), judged
    )


def as_python(anchors: AnchorConfig) -> str:
    """The lines of an experiment file that choose these sizes, scales and ratios."""
    return "\n".join(f"config.anchors.{name} = {value!r}" for name, value in _chosen(anchors))


def as_flags(anchors: AnchorConfig) -> str:
    """The same for the command line, as a shell takes it."""
    flags = (f"'--config.anchors.{name}={value!r}'" for name, value in _chosen(anchors))
    return " \\\n".join(flags)


class _Search:
    """Coordinate ascent over a table of the best IoU of every box with every candidate shape."""

    def __init__(self, objects: ObjectTable, config: Config, rng: np.random.Generator):
        anchors, self._config, self._rng = config.anchors, config, rng
        present = (anchors.size * scale for scale in anchors.scales)
        self._sides = sorted({*SIDES, *(float(side) for side in present)})
        self._ratios = sorted({*RATIOS, *(float(ratio) for ratio in anchors.ratios)})
        self._table = self._fill(objects)

    def best(self, num_scales: int, num_ratios: int) -> AnchorConfig:
        """The best anchors of so many scales and ratios that any start led to."""
        found = [self._climb(*start) for start in self._starts(num_scales, num_ratios)]
        _, sides, ratios = max(found, key=lambda result: result[0])
        sides = sorted(self._sides[side] for side in sides)
        return dataclasses.replace(
            self._config.anchors,
            size=round(sides[0], 3),
            scales=tuple(round(side / sides[0], 3) for side in sides),
            ratios=tuple(sorted(round(self._ratios[ratio], 3) for ratio in ratios)),
        )

    def _fill(self, objects: ObjectTable) -> Float[np.ndarray, "sides ratios m"]:
        fitted = fit_objects(objects, self._config.pipeline)
        canvases = fitted.canvases[objects.image]
        table = np.empty((len(self._sides), len(self._ratios), len(objects.labels)), np.float32)
        for place, ratio in enumerate(self._ratios):
            anchors = dataclasses.replace(
                self._config.anchors, size=1.0, scales=tuple(self._sides), ratios=(ratio,)
            )
            for canvas in np.unique(canvases, axis=0).tolist():
                here = (canvases == canvas).all(axis=1)
                iou = iou_by_shape(fitted.boxes[here], tuple(canvas), anchors)
                table[:, place, here] = iou.max(axis=1).T
        return table

    def _starts(self, num_scales: int, num_ratios: int) -> list[tuple[list[int], list[int]]]:
        """The configured anchors, where they are as many, and some at random."""
        anchors = self._config.anchors
        starts = []
        if (num_scales, num_ratios) == (len(anchors.scales), len(anchors.ratios)):
            sides = [self._sides.index(float(anchors.size * scale)) for scale in anchors.scales]
            starts = [(sides, [self._ratios.index(float(ratio)) for ratio in anchors.ratios])]
        for _ in range(STARTS):
            sides = self._rng.choice(len(self._sides), num_scales, replace=False)
            ratios = self._rng.choice(len(self._ratios), num_ratios, replace=False)
            starts.append((sides.tolist(), ratios.tolist()))
        return starts

    def _climb(self, sides: list[int], ratios: list[int]) -> tuple[float, list[int], list[int]]:
        """Exchanges one side or ratio at a time for the best one, until that helps no more."""
        best, score = -1.0, self._score(self._table[sides][:, ratios].max(axis=(0, 1)))
        while score > best:
            best = float(score)
            sides = self._exchange(self._table[:, ratios].max(axis=1), sides)
            ratios = self._exchange(self._table[sides].max(axis=0), ratios)
            score = self._score(self._table[sides][:, ratios].max(axis=(0, 1)))
        return best, sides, ratios

    def _exchange(self, iou: Float[np.ndarray, "c m"], chosen: list[int]) -> list[int]:
        """`chosen` of the c candidates, each in turn replaced by the one that serves best."""
        chosen = list(chosen)
        for place in range(len(chosen)):
            rest = chosen[:place] + chosen[place + 1 :]
            scores = self._score(np.maximum(iou, iou[rest].max(axis=0, initial=0)))
            if scores.max() > scores[chosen[place]]:
                chosen[place] = int(scores.argmax())
        return chosen

    def _score(self, iou: Float[np.ndarray, "*c m"]) -> Float[np.ndarray, "*c"]:
        """What is raised: the share of boxes with a positive anchor, then the mean best IoU."""
        positive = (iou >= self._config.matching.positive_iou).mean(axis=-1)
        return np.asarray(positive + iou.mean(axis=-1, dtype=np.float64))


def _halves(objects: ObjectTable, rng: np.random.Generator) -> tuple[ObjectTable, ObjectTable]:
    """The objects of one half of the images, and of the other; at most MAX_BOXES of each."""
    images = rng.permutation(np.unique(objects.image))
    if len(images) < 2:
        raise ValueError(f"fit_anchors: {len(images)} images with objects; two are the least")
    halves = []
    for some in (images[::2], images[1::2]):
        places = np.flatnonzero(np.isin(objects.image, some))
        if len(places) > MAX_BOXES:
            places = np.sort(rng.choice(places, MAX_BOXES, replace=False))
        halves.append(objects.select(places))
    return halves[0], halves[1]


def _summary(found: Coverage, config: Config) -> Covered:
    positive = found.positive(config.matching).mean()
    uncovered = found.uncovered(config.matching).mean()
    return Covered(float(positive), float(uncovered), float(found.iou.mean()))


def _chosen(anchors: AnchorConfig) -> list[tuple[str, object]]:
    return [(name, getattr(anchors, name)) for name in ("size", "scales", "ratios")]
