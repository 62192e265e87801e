"""The `loss` section of the configuration."""

import dataclasses
import math

from retinanet_jax.core.box_losses import BOX_LOSSES, DELTA_LOSSES
from retinanet_jax.core.field_checks import one_of, one_of_table
from retinanet_jax.core.focal import CLASS_LOSSES, ClassLoss, FocalParams

NORMALIZERS = (
    *("batch", "batch_plus_one", "images_plus_one", "images_or_one"),
    *("image", "level", "running"),
)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The losses, their parameters, the anchors they are summed over, and the normaliser.

    Raises:
      ValueError: an invalid value; the message names the field and the fix.
    """

    classification: str = "focal"
    """focal: equation 5 of the paper. cross_entropy: the same without focusing, whatever gamma is.
    focal_star: FL* of the paper's appendix A. quality_focal (arXiv 2006.04388) and varifocal (arXiv
    2008.13367): the target of a positive anchor is the IoU of its predicted box with its object;
    with matching.assigner task_aligned, the alignment of its predictions (TOOD), which also weights
    its box loss."""
    gamma: float | int = 2.0
    """Focusing parameter; 0 is cross entropy. Paper: 2. For focal_star: its steepness, above 0. For
    quality_focal: the exponent that its paper calls beta (2). For varifocal: the exponent (2)."""
    alpha: float | int | None = 0.25
    """Weight of positives; negatives have 1 - alpha. 'none': no weighting. Paper: 0.25 at gamma 2,
    0.75 for cross entropy. For varifocal: the weight of the negatives (its paper: 0.75).
    quality_focal does not use it."""
    star_beta: float | int = 0.0
    """Shift of focal_star, the beta of the paper's appendix A."""
    box: str = "smooth_l1"
    """smooth_l1 or l1 of the encoded deltas; giou (torchvision v2), diou or ciou (arXiv 1911.08287)
    of the decoded boxes."""
    beta: float | int = 1 / 9
    """Difference at which smooth L1 turns from quadratic to linear, in units of the deltas
    (keras-retinanet; Detectron 1 has 0.11)."""
    box_weight: float | int = 1.0
    """Factor of the box loss in the total, and of the centre-ness loss with model.centerness."""
    distribution_weight: float | int = 0.125
    """Factor of the distribution focal loss within the box loss, with model.box_bins. Its paper has
    1/4, and a GIoU loss with a box_weight of 2."""
    hard_examples: int | None = None
    """OHEM (paper, section 5.1): number of anchors per image to train on, those with the highest
    loss. 'none': all anchors. Paper: 128, 256 or 512, with cross_entropy. The normaliser does not
    change; NMS leaves few positives, so box losses weigh less relative to class losses."""
    hard_examples_iou: float | int = 0.7
    """IoU of the NMS among the anchors, ranked by loss, that precedes the choice of hard_examples.
    Paper: 0.5 or 0.7."""
    negatives_per_positive: int | None = None
    """Quota within hard_examples: at most this many negatives per positive, and positives limited
    to their share (SSD, arXiv 1512.02325, section 2.2: 3). 'none': no quota."""
    normalizer: str = "batch"
    """Divisor of the sum over the anchors: a count of positives, see `divisors` in
    loss_normalizer.py. batch: positives of the whole batch (the paper). batch_plus_one: the same
    plus 1 (TF). images_plus_one: plus 1 per image (Detectron). images_or_one: an image without
    positives counts as 1 (MMDetection). image: positives per image (torchvision). level: per
    pyramid level (NVIDIA). running: a running mean (Detectron2)."""

    @property
    def focal(self) -> FocalParams:
        """Returns the parameters of the class loss."""
        return FocalParams(self.gamma, self.alpha, self.star_beta)

    def __post_init__(self):
        for name in ("gamma", "beta", "box_weight", "distribution_weight"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"loss.{name}: {value} is not a finite number of at least 0")
        if not math.isfinite(self.star_beta):
            raise ValueError(f"loss.star_beta: {self.star_beta} is not a finite number")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError(
                f"loss.alpha: {self.alpha} is not in [0, 1]; write 'none' for no weighting"
            )
        one_of_table("loss.classification", self.classification, CLASS_LOSSES, ClassLoss)
        for name, known in (
            ("box", (*DELTA_LOSSES, *BOX_LOSSES)),
            ("normalizer", NORMALIZERS),
        ):
            one_of(f"loss.{name}", getattr(self, name), known)
        if self.classification == "focal_star" and not self.gamma > 0:
            raise ValueError(
                "loss.gamma: focal_star divides by it; write a number above 0, such as 2, or "
                "loss.classification=cross_entropy"
            )
        for name in ("hard_examples", "negatives_per_positive"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"loss.{name}: {value} is invalid; write 'none' or 1 or more")
        if not 0 <= self.hard_examples_iou <= 1:
            raise ValueError(f"loss.hard_examples_iou: {self.hard_examples_iou} is not in [0, 1]")
        if (ratio := self.negatives_per_positive) and (self.hard_examples or 0) <= ratio:
            size = "none" if self.hard_examples is None else self.hard_examples
            raise ValueError(
                f"loss.hard_examples: {size} leaves no room for a positive and {ratio} negatives; "
                "write 128, or loss.negatives_per_positive='none'"
            )

    @property
    def needs_quality(self) -> bool:
        """Whether the class target of a positive is the IoU of its predicted box."""
        return CLASS_LOSSES[self.classification].of_quality
