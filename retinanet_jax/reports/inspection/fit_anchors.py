"""Fits anchors to a dataset: size, scales and ratios that cover more boxes.

YOLO9000 (arXiv 1612.08242, section 2, "Dimension Clusters") chooses anchor shapes by clustering the
training boxes by IoU. RetinaNet has all pairs of some scales and some ratios at each location of
each level, so its shapes are not independent. The search here raises the same measure by changing
one scale or ratio at a time, with the others fixed, until no change helps. The IoU is the exact
best IoU over the anchor grid, offsets included.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.data.anchor_coverage import Coverage, iou_by_shape, object_coverage
from retinanet_jax.data.object_table import ObjectTable, fit_objects

# The candidates: sides of square anchors in strides, and ratios (height / width).
SIDES = tuple(np.geomspace(0.5, 16, 31).tolist())
RATIOS = tuple(np.geomspace(1 / 8, 8, 25).tolist())
MAX_BOXES = 4000  # per half; more boxes take time and do not change the result
STARTS = 4  # random starts in addition to the configured anchors
# The gain in positive held-out boxes for which other anchors, or more anchors, are proposed.
MIN_GAIN, MIN_GAIN_OF_MORE = 0.01, 0.05


class CoverageSummary(NamedTuple):
    """Share of boxes with a positive anchor, share of uncovered boxes, and mean best IoU."""

    positive: float
    uncovered: float
    mean_iou: float


class AnchorFit(NamedTuple):
    """The result of a search.

    config: the proposed anchors; the configured ones if no better ones were found.
    before, after: coverage of the half of the images that the anchors were fitted to.
    held_out_before, held_out_after: coverage of the other half.
    """

    config: AnchorConfig
    before: CoverageSummary
    after: CoverageSummary
    held_out_before: CoverageSummary
    held_out_after: CoverageSummary


def fit_anchors(objects: ObjectTable, config: Config, seed: int = 0) -> AnchorFit:
    """Searches anchors that cover more of the objects, resized as for the network. Deterministic.

    Anchors are fitted to half of the images. The other half decides which are proposed, so that
    its coverage never falls. The number of anchors stays as configured, unless one more scale or
    ratio gives MIN_GAIN_OF_MORE more of its boxes a positive anchor.

    Args:
      objects: objects of the training set. Crowds are ignored.
      config: configuration; the sections anchors, matching and pipeline are used.
      seed: for the halves and the random starts.

    Raises:
      ValueError: fewer than two images have objects.
    """
    rng = np.random.default_rng(seed)
    fitted, held_out = _halves(objects.select(~objects.crowd), rng)
    search = _Search(fitted, config, rng)

    def covered(half: ObjectTable, anchors: AnchorConfig) -> CoverageSummary:
        return _summary(object_coverage(half, config.pipeline, anchors), config)

    before = best = config.anchors
    best_score = covered(held_out, best)
    for more_scales, more_ratios in ((0, 0), (1, 0), (0, 1)):
        found = search.best(len(before.scales) + more_scales, len(before.ratios) + more_ratios)
        score = covered(held_out, found)
        gain = MIN_GAIN_OF_MORE if more_scales or more_ratios else MIN_GAIN
        if score.positive >= best_score.positive + gain:
            best, best_score = found, score
    return AnchorFit(
        best, covered(fitted, before), covered(fitted, best), covered(held_out, before), best_score
    )


def as_python(anchors: AnchorConfig) -> str:
    """Lines of an experiment file that set these sizes, scales and ratios."""
    return "\n".join(f"config.anchors.{name} = {value!r}" for name, value in _chosen(anchors))


def as_flags(anchors: AnchorConfig) -> str:
    """The same as flags, quoted for a shell."""
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
        """The best anchors with so many scales and ratios over all starts."""
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
        """The configured anchors, if they have these numbers, and random ones."""
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
        """Replaces one side or ratio at a time by the best one, until the score stops rising."""
        best, score = -1.0, self._score(self._table[sides][:, ratios].max(axis=(0, 1)))
        while score > best:
            best = float(score)
            sides = self._exchange(self._table[:, ratios].max(axis=1), sides)
            ratios = self._exchange(self._table[sides].max(axis=0), ratios)
            score = self._score(self._table[sides][:, ratios].max(axis=(0, 1)))
        return best, sides, ratios

    def _exchange(self, iou: Float[np.ndarray, "c m"], chosen: list[int]) -> list[int]:
        """`chosen` with each entry in turn replaced by the best of the c candidates."""
        chosen = list(chosen)
        for place in range(len(chosen)):
            rest = chosen[:place] + chosen[place + 1 :]
            scores = self._score(np.maximum(iou, iou[rest].max(axis=0, initial=0)))
            if scores.max() > scores[chosen[place]]:
                chosen[place] = int(scores.argmax())
        return chosen

    def _score(self, iou: Float[np.ndarray, "*c m"]) -> Float[np.ndarray, "*c"]:
        """Share of boxes with a positive anchor plus mean best IoU."""
        positive = (iou >= self._config.matching.positive_iou).mean(axis=-1)
        return np.asarray(positive + iou.mean(axis=-1, dtype=np.float64))


def _halves(objects: ObjectTable, rng: np.random.Generator) -> tuple[ObjectTable, ObjectTable]:
    """The objects of two random halves of the images, at most MAX_BOXES of each."""
    images = rng.permutation(np.unique(objects.image))
    if len(images) < 2:
        raise ValueError(f"fit_anchors: {len(images)} images with objects; at least 2 are needed")
    halves = []
    for some in (images[::2], images[1::2]):
        places = np.flatnonzero(np.isin(objects.image, some))
        if len(places) > MAX_BOXES:
            places = np.sort(rng.choice(places, MAX_BOXES, replace=False))
        halves.append(objects.select(places))
    return halves[0], halves[1]


def _summary(found: Coverage, config: Config) -> CoverageSummary:
    positive = found.positive(config.matching).mean()
    uncovered = found.uncovered(config.matching).mean()
    return CoverageSummary(float(positive), float(uncovered), float(found.iou.mean()))


def _chosen(anchors: AnchorConfig) -> list[tuple[str, object]]:
    return [(name, getattr(anchors, name)) for name in ("size", "scales", "ratios")]
