"""The assigners, which match anchors to ground-truth boxes: their table and settings.

Padding, crowds and empty images are masked, so every function compiles once per shape.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from retinanet_jax.core import box_coder
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.atss import match_atss
from retinanet_jax.core.box_outputs import BoxOutputs, join_levels
from retinanet_jax.core.field_checks import one_of, one_of_table
from retinanet_jax.core.iou_matching import IouRules, match_by_iou
from retinanet_jax.core.task_aligned import match_task_aligned, normalized_alignment

LOW_QUALITY = ("own_box", "that_box", "one_anchor", "none")


@dataclasses.dataclass(frozen=True)
class MatchingConfig:
    """When an anchor is positive, negative or ignored.

    Raises:
      ValueError: an invalid value; the message names the field and the fix.
    """

    assigner: str = "iou"
    """A name in ASSIGNERS. iou: matches by the thresholds below (the paper). atss: matches by a
    threshold for each object, computed from its candidates (arXiv 1912.02424). task_aligned:
    matches by the network's predictions (TOOD, arXiv 2108.07755); with loss.classification
    quality_focal or varifocal, their alignment is also the class target and the weight of the box
    loss."""
    positive_iou: float | int = 0.5
    """For iou: an anchor with at least this IoU with some box is positive."""
    negative_iou: float | int = 0.4
    """For iou: an anchor with less than this IoU with every box is negative; anchors in between are
    ignored."""
    low_quality: str = "own_box"
    """For iou: whether the anchors with the highest IoU of a box, all ties included, are positive
    at any IoU. own_box: yes, with the box that the anchor itself overlaps most, which may be
    another one (Detectron2, torchvision). that_box: yes, with the box whose best anchor it is, the
    last of several (MMDetection). one_anchor: as that_box, but only the first of tied anchors and
    the first of several boxes (TF). none: no (keras-retinanet)."""
    low_quality_min_iou: float | int = 0.0
    """For iou: low-quality matches have an IoU above this. At 0, a box that overlaps no anchor has
    no match (torchvision and Detectron2 then make every anchor with IoU 0 positive). 0.4 is close
    to Detectron 1."""
    atss_locations: int = 9
    """For atss: number of closest locations of each level whose anchors are candidates of an object
    (its paper's k: 9)."""
    aligned_anchors: int = 13
    """For task_aligned: number of positive anchors per object (its paper's m: 13)."""
    aligned_score_power: float | int = 1.0
    """For task_aligned: exponent of the class score (its paper's alpha: 1)."""
    aligned_iou_power: float | int = 6.0
    """For task_aligned: exponent of the IoU (its paper's beta: 6)."""
    crowd_ioa: float | int | None = 0.5
    """Negative anchors with at least this share of their area inside one crowd region are ignored.
    'none': crowd regions are dropped and their anchors are negative (all public
    implementations)."""

    def __post_init__(self):
        one_of_table("matching.assigner", self.assigner, ASSIGNERS, Assigner)
        one_of("matching.low_quality", self.low_quality, LOW_QUALITY)
        for name in ("atss_locations", "aligned_anchors"):
            if getattr(self, name) < 1:
                raise ValueError(f"matching.{name}: {getattr(self, name)} must be at least 1")
        for name in ("aligned_score_power", "aligned_iou_power"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"matching.{name}: {getattr(self, name)} must be 0 or more")
        if not 0 < self.positive_iou <= 1:
            raise ValueError(f"matching.positive_iou: {self.positive_iou} is not in (0, 1]")
        if not 0 <= self.negative_iou <= self.positive_iou:
            raise ValueError(
                f"matching.negative_iou: {self.negative_iou} is not between 0 and "
                f"matching.positive_iou ({self.positive_iou})"
            )
        if not 0 <= self.low_quality_min_iou < 1:
            raise ValueError(
                f"matching.low_quality_min_iou: {self.low_quality_min_iou} is not in [0, 1)"
            )
        if self.crowd_ioa is not None and not 0 < self.crowd_ioa <= 1:
            raise ValueError(
                f"matching.crowd_ioa: {self.crowd_ioa} is not in (0, 1]; "
                "write 'none' to drop crowds"
            )

    @property
    def iou_rules(self) -> IouRules:
        """Returns the fields for the assigner iou."""
        return IouRules(*(getattr(self, name) for name in IouRules._fields))


class ImageAnchors(NamedTuple):
    """What an assigner gets for an image."""

    anchors: Float[ArrayLike, "n 4"]
    """Anchors of all levels, xyxy pixels."""
    level_sizes: tuple[int, ...]
    """Number of anchors of each level."""
    anchors_per_location: int
    gt_boxes: Float[ArrayLike, "m 4"]
    gt_labels: Int[ArrayLike, "m"]
    """Class index of each box; -1 for padding."""
    valid: Bool[ArrayLike, "m"]
    """False for padding and crowds, which match no anchor."""
    class_logits: tuple[Float[ArrayLike, "_ k"], ...] = ()
    """Per level; only for an assigner with needs_predictions."""
    box_deltas: tuple[Float[ArrayLike, "_ 4"] | BoxOutputs, ...] = ()
    """Per level; only for an assigner with needs_predictions."""


class Assigner(NamedTuple):
    """A value of `matching.assigner`."""

    match: Callable[[ImageAnchors, MatchingConfig], Array]
    """Function that returns int32 [n]: the index of the box of each anchor, NEGATIVE or IGNORE. It
    is not differentiated."""
    needs_predictions: bool = False
    alignment: Callable[..., Array] | None = None
    """Function (ImageAnchors, MatchingConfig, matches [n], their labels [n], their boxes [n 4]) ->
    Targets.alignment [n]."""


def _by_iou(image: ImageAnchors, config: MatchingConfig) -> Array:
    return match_by_iou(image.anchors, image.gt_boxes, image.valid, config.iou_rules)


def _by_atss(image: ImageAnchors, config: MatchingConfig) -> Array:
    ends = np.cumsum(image.level_sizes)[:-1]
    return match_atss(
        tuple(jnp.split(jnp.asarray(image.anchors), ends)),
        image.gt_boxes,
        image.valid,
        locations=config.atss_locations,
        anchors_per_location=image.anchors_per_location,
    )


def _predicted_boxes(image: ImageAnchors) -> Array:
    return box_coder.decode(image.anchors, join_levels(image.box_deltas, axis=0).deltas)


def _by_alignment(image: ImageAnchors, config: MatchingConfig) -> Array:
    return match_task_aligned(
        image.anchors,
        image.class_logits,
        _predicted_boxes(image),
        image.gt_boxes,
        image.gt_labels,
        image.valid,
        count=config.aligned_anchors,
        score_power=config.aligned_score_power,
        iou_power=config.aligned_iou_power,
    )


def _alignment(
    image: ImageAnchors, config: MatchingConfig, matches: Array, labels: Array, matched: Array
) -> Array:
    return normalized_alignment(
        image.class_logits,
        _predicted_boxes(image),
        matches,
        labels,
        matched,
        len(image.gt_boxes),
        score_power=config.aligned_score_power,
        iou_power=config.aligned_iou_power,
    )


ASSIGNERS: dict[str, Assigner] = {
    "iou": Assigner(_by_iou),
    "atss": Assigner(_by_atss),
    "task_aligned": Assigner(_by_alignment, needs_predictions=True, alignment=_alignment),
}
"""The values of `matching.assigner`. CONTRIBUTING.md shows how to add one."""
