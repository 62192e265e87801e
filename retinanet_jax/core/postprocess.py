"""From the heads' outputs to detections: scores, top-k, decoding, NMS, original pixels.

RetinaNet paper (arXiv 1708.02002), section 4, "Inference": at most 1,000 of the best predictions of
each pyramid level above a confidence of 0.05 are decoded, merged, and thinned by NMS at 0.5. By
default the exact choices are those of torchvision's `RetinaNet.postprocess_detections`. Everything
has a fixed size with a validity mask, and handles one image; callers vmap.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Num

from retinanet_jax.core import boxes as box_ops
from retinanet_jax.core.nms import nms

ArrayLike = Array | np.ndarray
NO_LABEL = -1


class Detections(NamedTuple):
    """Detections of one image, falling by score; the valid ones come first.

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
      ValueError: for an impossible value; the message names the field and what to write.
    """

    score_threshold: float | int = 0.05
    """Keep scores strictly above this. Paper, Detectron2 and torchvision: 0.05."""
    pre_nms_top_k: int = 1000
    """At most so many (anchor, class) pairs of each level reach NMS. Paper: 1000."""
    nms_iou: float | int = 0.5
    """A box of the same class with an IoU strictly above this is suppressed. Paper: 0.5."""
    max_detections: int = 100
    """Detections of an image. COCO scores 100; torchvision's default is 300."""
    max_log_scale: float | int = math.log(1000.0 / 16.0)
    """Upper bound of the decoded log-scales dw and dh (Detectron)."""
    clamp_both_sides: bool = False
    """Whether -max_log_scale is a lower bound of dw and dh as well (MMDetection)."""
    clip_before_nms: bool = True
    """Whether boxes are clipped to the image before NMS (torchvision, MMDetection) or after it
    (Detectron2)."""
    drop_empty: bool = False
    """Whether boxes that clipping leaves without area are dropped (Detectron2, MMDetection). They
    overlap nothing, so that NMS never suppresses them."""

    def __post_init__(self):
        for name in ("score_threshold", "nms_iou"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"postprocess.{name}: {value} is not between 0 and 1")
        for name in ("pre_nms_top_k", "max_detections"):
            value = getattr(self, name)
            if value < 1 or value != int(value):
                raise ValueError(f"postprocess.{name}: {value} is not a whole number of at least 1")
        if not self.max_log_scale > 0:
            raise ValueError(
                f"postprocess.max_log_scale: {self.max_log_scale} is not positive; "
                "Detectron's value is log(1000 / 16) = 4.135"
            )


def top_pairs(
    class_logits: Float[ArrayLike, "n k"], count: int
) -> tuple[Float[Array, "c"], Int32[Array, "c"], Int32[Array, "c"]]:
    """The highest (anchor, class) pairs: exactly `top_k` of the flattened logits.

    Order the pairs by falling logit, equal ones by their flat index anchor * k + class, and the
    anchors by their best pair. An anchor that is not among the first `count` anchors has `count`
    pairs before any of its own, one of each anchor before it, so none of its pairs is wanted. The
    first stage hence looks at the best class of every anchor, the second at `count` anchors only:
    201,600 x 80 logits cost one pass over them and 80,000 sorted values instead of 16 million.

    Args:
      class_logits: n anchors by k classes.
      count: pairs wanted; fewer (n * k) come back where there are no more.

    Returns:
      Logits (float32, falling), anchor indices and class labels, c = min(count, n * k).
    """
    num_anchors, num_classes = class_logits.shape
    _, anchors = jax.lax.top_k(jnp.max(class_logits, axis=1), min(count, num_anchors))
    # In their original order, so that equal logits come out in the order of the flattened top-k.
    anchors = jnp.sort(anchors)
    flat = jnp.asarray(class_logits)[anchors].astype(jnp.float32).reshape(-1)
    logits, pairs = jax.lax.top_k(flat, min(count, num_anchors * num_classes))
    return logits, anchors[pairs // num_classes], pairs % num_classes


def candidates(
    class_logits: Float[ArrayLike, "n k"],
    box_deltas: Float[ArrayLike, "n 4"],
    anchors: Float[ArrayLike, "n 4"],
    image_size: Num[ArrayLike, "2"],
    config: PostprocessConfig,
) -> Detections:
    """The best predictions of one pyramid level, decoded and (by default) clipped, before NMS.

    The threshold is compared with float32 sigmoids, as torchvision does; the ranking uses the
    logits, which do not run together near 1 as the sigmoids do.

    Args:
      class_logits: of the n anchors of the level.
      box_deltas: (dx, dy, dw, dh) of the anchors.
      anchors: xyxy pixels of the network's input.
      image_size: (height, width) of the image without padding, to which boxes are clipped.
      config: threshold, counts, bounds of the box coder and clipping.

    Returns:
      min(pre_nms_top_k, n * k) detections; an anchor may occur with several classes.
    """
    logits, indices, labels = top_pairs(class_logits, config.pre_nms_top_k)
    scores = jax.nn.sigmoid(logits)
    boxes = box_ops.decode(
        jnp.asarray(anchors)[indices],
        jnp.asarray(box_deltas)[indices],
        max_log_scale=config.max_log_scale,
        min_log_scale=-config.max_log_scale if config.clamp_both_sides else -math.inf,
    )
    found = Detections(boxes, scores, labels, scores > config.score_threshold)
    return _blank_invalid(_clip(found, image_size, config) if config.clip_before_nms else found)


def detect(
    class_logits: tuple[Float[ArrayLike, "_ k"], ...],
    box_deltas: tuple[Float[ArrayLike, "_ 4"], ...],
    anchors: tuple[Float[ArrayLike, "_ 4"], ...],
    image_size: Num[ArrayLike, "2"],
    config: PostprocessConfig,
    nms_iou: float | Float[ArrayLike, ""] | None = None,
) -> Detections:
    """Detections of one image from the heads' outputs on all levels.

    Args:
      class_logits: per level, n_l anchors by k classes.
      box_deltas: per level, (dx, dy, dw, dh).
      anchors: per level, xyxy pixels of the network's input.
      image_size: (height, width) of the image without padding.
      config: threshold, counts and the IoU of NMS.
      nms_iou: in place of config.nms_iou; may be traced.

    Returns:
      `max_detections` detections in pixels of the network's input, after class-wise NMS.

    Raises:
      ValueError: if the tuples differ in length.
    """
    levels = [
        candidates(logits, deltas, level_anchors, image_size, config)
        for logits, deltas, level_anchors in zip(class_logits, box_deltas, anchors, strict=True)
    ]
    merged = Detections(*(jnp.concatenate(parts) for parts in zip(*levels, strict=True)))
    indices, found = nms(
        merged.boxes,
        merged.scores,
        merged.valid,
        iou_threshold=config.nms_iou if nms_iou is None else nms_iou,
        max_outputs=config.max_detections,
        labels=merged.labels,
    )
    kept = Detections(merged.boxes[indices], merged.scores[indices], merged.labels[indices], found)
    if not config.clip_before_nms:
        kept = _valid_first(_clip(kept, image_size, config))
    return _blank_invalid(kept)


def to_original(
    detections: Detections,
    image_size: Num[ArrayLike, "2"],
    original_size: Num[ArrayLike, "2"],
) -> Detections:
    """Detections in pixels of the image as it was before resizing.

    Args:
      detections: in pixels of the network's input.
      image_size: (height, width) of the resized image without padding.
      original_size: (height, width) of the original image.
    """
    factors = jnp.asarray(original_size, jnp.float32) / jnp.asarray(image_size, jnp.float32)
    return detections._replace(boxes=box_ops.scale(detections.boxes, factors))


def _clip(detections: Detections, image_size: Num[ArrayLike, "2"], config: PostprocessConfig):
    """Boxes clipped to the image; those without area are no longer valid, if config says so."""
    boxes = box_ops.clip(detections.boxes, image_size)
    valid = detections.valid
    if config.drop_empty:
        valid = valid & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return detections._replace(boxes=boxes, valid=valid)


def _valid_first(detections: Detections) -> Detections:
    order = jnp.argsort(~detections.valid, stable=True)
    return Detections(*(values[order] for values in detections))


def _blank_invalid(detections: Detections) -> Detections:
    """Zeros and label -1 where nothing was detected: left-overs would look like detections."""
    boxes, scores, labels, valid = detections
    return Detections(
        boxes=jnp.where(valid[:, None], boxes, 0),
        scores=jnp.where(valid, scores, 0),
        labels=jnp.where(valid, labels, NO_LABEL),
        valid=valid,
    )
