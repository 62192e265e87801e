"""Turns the heads' outputs into detections: scores, top-k, decoding, NMS, original pixels.

RetinaNet paper (arXiv 1708.02002), section 4, "Inference": of each pyramid level, the at most 1,000
best predictions with a confidence above 0.05 are decoded; all are merged and filtered by NMS at
0.5. The defaults follow torchvision's `RetinaNet.postprocess_detections`. Every function handles
one image, and every result has a fixed size and a validity mask; use `jax.vmap` for a batch.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Num

from retinanet_jax.core import box_coder
from retinanet_jax.core import boxes as box_ops
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.box_outputs import BoxOutputs, named
from retinanet_jax.core.centerness import class_scores
from retinanet_jax.core.field_checks import one_of
from retinanet_jax.core.nms_kinds import NMS_KINDS, Candidates, NmsLimits

NO_LABEL = -1


class Detections(NamedTuple):
    """Detections of one image in descending order of score, valid ones first.

    Where `valid` is False, boxes and scores are 0 and labels are -1.
    """

    boxes: Float[ArrayLike, "d 4"]
    """xyxy in pixels."""
    scores: Float[ArrayLike, "d"]
    """Probability of the class, in [0, 1]."""
    labels: Int32[ArrayLike, "d"]
    """Class, contiguous from 0."""
    valid: Bool[ArrayLike, "d"]


@dataclasses.dataclass(frozen=True)
class PostprocessConfig:
    """How predictions become detections.

    Raises:
      ValueError: an invalid value; the message names the field and the fix.
    """

    score_threshold: float | int = 0.05
    """Keep scores strictly above this. Paper, Detectron2 and torchvision: 0.05."""
    pre_nms_top_k: int = 1000
    """Largest number of (anchor, class) pairs per level that enter NMS. Paper: 1000."""
    nms: str = "class_wise"
    """class_wise: greedy NMS for each class (paper). class_agnostic: greedy NMS over all classes
    together. soft_linear, soft_gaussian: for each class, lowers scores instead of dropping boxes
    (Soft-NMS, arXiv 1704.04503); detections whose decayed score is at most score_threshold are
    dropped."""
    nms_iou: float | int = 0.5
    """NMS suppresses a box of the same class with an IoU strictly above this. Paper: 0.5. For
    soft_linear: the IoU from which scores decay (its paper: 0.3). soft_gaussian does not use it."""
    soft_sigma: float | int = 0.5
    """For soft_gaussian: a score is multiplied by exp(-IoU^2 / soft_sigma) (its paper: 0.5)."""
    max_detections: int = 100
    """Largest number of detections per image. COCO evaluates 100; torchvision's default is 300."""
    max_log_scale: float | int = math.log(1000.0 / 16.0)
    """Upper bound of the decoded log-scales dw and dh (Detectron)."""
    clamp_both_sides: bool = False
    """Whether -max_log_scale is a lower bound of dw and dh as well (MMDetection)."""
    clip_before_nms: bool = True
    """Whether boxes are clipped to the image before NMS (torchvision, MMDetection) or after it
    (Detectron2)."""
    drop_empty: bool = False
    """Whether boxes without area after clipping are dropped (Detectron2, MMDetection). NMS never
    suppresses them."""

    def __post_init__(self):
        one_of("postprocess.nms", self.nms, NMS_KINDS)
        if not self.soft_sigma > 0:
            raise ValueError(f"postprocess.soft_sigma: {self.soft_sigma} must be above 0")
        for name in ("score_threshold", "nms_iou"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"postprocess.{name}: {value} is not between 0 and 1")
        for name in ("pre_nms_top_k", "max_detections"):
            value = getattr(self, name)
            if value < 1 or value != int(value):
                raise ValueError(f"postprocess.{name}: {value} must be a whole number from 1")
        if not self.max_log_scale > 0:
            raise ValueError(
                f"postprocess.max_log_scale: {self.max_log_scale} is not positive; "
                "Detectron's value is log(1000 / 16) = 4.135"
            )


def top_pairs(
    class_logits: Float[ArrayLike, "n k"], count: int
) -> tuple[Float[Array, "c"], Int32[Array, "c"], Int32[Array, "c"]]:
    """Returns the (anchor, class) pairs with the highest logits, exactly `top_k` of all logits.

    It has two stages: the `count` anchors with the best highest logit, then the best pairs of these
    anchors. This is exact. Sort pairs by descending logit, ties by flat index, and anchors by their
    best pair: an anchor after the first `count` anchors has at least `count` pairs before its own,
    one for each anchor before it. 201,600 x 80 logits cost one pass and a sort of 80,000 values
    instead of 16 million.

    Args:
      class_logits: n anchors by k classes.
      count: number of pairs.

    Returns:
      Logits (float32, descending), anchor indices and class labels, c = min(count, n * k).
    """
    num_anchors, num_classes = class_logits.shape
    _, anchors = jax.lax.top_k(jnp.max(class_logits, axis=1), min(count, num_anchors))
    # In the original order, so that ties have the order of the flattened top-k.
    anchors = jnp.sort(anchors)
    flat = jnp.asarray(class_logits)[anchors].astype(jnp.float32).reshape(-1)
    logits, pairs = jax.lax.top_k(flat, min(count, num_anchors * num_classes))
    return logits, anchors[pairs // num_classes], pairs % num_classes


def candidates(
    class_logits: Float[ArrayLike, "n k"],
    box_deltas: Float[ArrayLike, "n 4"] | BoxOutputs,
    anchors: Float[ArrayLike, "n 4"],
    image_size: Num[ArrayLike, "2"],
    config: PostprocessConfig,
) -> Detections:
    """Returns the best predictions of a pyramid level, decoded and by default clipped, before NMS.

    The threshold applies to float32 sigmoids, as in torchvision. The ranking uses logits, because
    sigmoids near 1 coincide; with centre-ness, it uses the scores of `class_scores`.

    Args:
      class_logits: logits of the n anchors of the level.
      box_deltas: (dx, dy, dw, dh) of the anchors; or BoxOutputs.
      anchors: anchors, xyxy pixels of the network's input.
      image_size: (height, width) of the image without padding, to which boxes are clipped.
      config: threshold, counts, bounds of the box coder, clipping.

    Returns:
      min(pre_nms_top_k, n * k) detections; an anchor may appear with several classes.
    """
    outputs = named(box_deltas)
    if outputs.centerness is None:
        logits, indices, labels = top_pairs(class_logits, config.pre_nms_top_k)
        scores = jax.nn.sigmoid(logits)
    else:
        every = class_scores(class_logits, outputs.centerness)
        scores, indices, labels = top_pairs(every, config.pre_nms_top_k)
    boxes = box_coder.decode(
        jnp.asarray(anchors)[indices],
        jnp.asarray(outputs.deltas)[indices],
        max_log_scale=config.max_log_scale,
        min_log_scale=-config.max_log_scale if config.clamp_both_sides else -math.inf,
    )
    found = Detections(boxes, scores, labels, scores > config.score_threshold)
    return _blank_invalid(_clip(found, image_size, config) if config.clip_before_nms else found)


def detect(
    class_logits: tuple[Float[ArrayLike, "_ k"], ...],
    box_deltas: tuple[Float[ArrayLike, "_ 4"] | BoxOutputs, ...],
    anchors: tuple[Float[ArrayLike, "_ 4"], ...],
    image_size: Num[ArrayLike, "2"],
    config: PostprocessConfig,
    nms_iou: float | Float[ArrayLike, ""] | None = None,
) -> Detections:
    """Returns the detections of one image from the heads' outputs on all levels.

    Args:
      class_logits: logits per level, n_l anchors by k classes.
      box_deltas: deltas per level, as in `candidates`.
      anchors: anchors per level, xyxy pixels of the network's input.
      image_size: (height, width) of the image without padding.
      config: threshold, counts and the IoU of NMS.
      nms_iou: replaces config.nms_iou; may be traced.

    Returns:
      `max_detections` detections in pixels of the network's input, after NMS.

    Raises:
      ValueError: the tuples differ in length.
    """
    levels = [
        candidates(logits, deltas, level_anchors, image_size, config)
        for logits, deltas, level_anchors in zip(class_logits, box_deltas, anchors, strict=True)
    ]
    merged = Detections(*(jnp.concatenate(parts) for parts in zip(*levels, strict=True)))
    kept = suppress(merged, config, nms_iou)
    if not config.clip_before_nms:
        kept = _valid_first(_clip(kept, image_size, config))
    return _blank_invalid(kept)


def suppress(
    found: Detections,
    config: PostprocessConfig,
    nms_iou: float | Float[ArrayLike, ""] | None = None,
) -> Detections:
    """Returns the max_detections best detections after the NMS of the config.

    Args:
      found: detections of one image, in any order; valid ones need not come first.
      config: kind and parameters of NMS.
      nms_iou: replaces config.nms_iou; may be traced.
    """
    iou = config.nms_iou if nms_iou is None else nms_iou
    limits = NmsLimits(iou, config.max_detections, config.score_threshold, config.soft_sigma)
    indices, scores, kept = NMS_KINDS[config.nms](Candidates(*found), limits)
    return Detections(found.boxes[indices], scores, found.labels[indices], kept)


def to_original(
    detections: Detections,
    image_size: Num[ArrayLike, "2"],
    original_size: Num[ArrayLike, "2"],
) -> Detections:
    """Converts detections to pixels of the original image.

    Args:
      detections: in pixels of the network's input.
      image_size: (height, width) of the resized image without padding.
      original_size: (height, width) of the original image.
    """
    factors = jnp.asarray(original_size, jnp.float32) / jnp.asarray(image_size, jnp.float32)
    return detections._replace(boxes=box_ops.scale(detections.boxes, factors))


def _clip(detections: Detections, image_size: Num[ArrayLike, "2"], config: PostprocessConfig):
    """Clips boxes to the image; with config.drop_empty, boxes without area become invalid."""
    boxes = box_ops.clip(detections.boxes, image_size)
    valid = detections.valid
    if config.drop_empty:
        valid = valid & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return detections._replace(boxes=boxes, valid=valid)


def _valid_first(detections: Detections) -> Detections:
    order = jnp.argsort(~detections.valid, stable=True)
    return Detections(*(values[order] for values in detections))


def _blank_invalid(detections: Detections) -> Detections:
    """Sets invalid entries to zeros and label -1."""
    boxes, scores, labels, valid = detections
    return Detections(
        boxes=jnp.where(valid[:, None], boxes, 0),
        scores=jnp.where(valid, scores, 0),
        labels=jnp.where(valid, labels, NO_LABEL),
        valid=valid,
    )
