"""The section `loss` of the configuration."""

import dataclasses

from retinanet_jax.core.box_losses import OF_BOXES, OF_DELTAS
from retinanet_jax.core.focal import CLASS_LOSSES

NORMALIZERS = (
    *("batch", "batch_plus_one", "images_plus_one", "images_or_one"),
    *("image", "level", "running"),
)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Which losses, their parameters, which anchors they are summed over and by what divided.

    Raises:
      ValueError: for a field without meaning; the message names the field and what to write.
    """

    classification: str = "focal"
    """focal: equation 5 of the paper; cross_entropy: the same without focusing, whatever gamma is;
    focal_star: FL* of its appendix A; quality_focal (arXiv 2006.04388) and varifocal (arXiv
    2008.13367) have the IoU of the predicted box with its object as the target of the positives."""
    gamma: float | int = 2.0
    """Focusing parameter; 0 is cross entropy. Paper: 2. The steepness of focal_star (above 0), the
    exponent that quality_focal's paper calls beta (2 there), and that of varifocal (2)."""
    alpha: float | int | None = 0.25
    """Weight of positives; negatives have 1 - alpha. None: no weighting. Paper: 0.25 at gamma 2,
    0.75 for cross entropy. With varifocal it weighs the negatives alone (its paper: 0.75);
    quality_focal has none."""
    star_beta: float | int = 0.0
    """Shift of focal_star, the beta of the paper's appendix A."""
    box: str = "smooth_l1"
    """smooth_l1 or l1 of the encoded deltas; giou (torchvision v2), diou or ciou (arXiv 1911.08287)
    of the decoded boxes."""
    beta: float | int = 1 / 9
    """Where smooth L1 turns from a parabola into a line, in units of the deltas (keras-retinanet;
    Detectron 1 has 0.11)."""
    box_weight: float | int = 1.0
    """Factor of the box loss within the total."""
    hard_examples: int = 0
    """OHEM (paper, section 5.1): only so many anchors of each image, those of the highest loss,
    are trained on. 0: all of them. Paper: 128, 256 or 512, with cross_entropy. The sum is divided
    as without; boxes then weigh less beside classes, since NMS leaves few positives."""
    hard_examples_iou: float | int = 0.7
    """NMS by the loss among the anchors comes before that choice; this is its IoU. 0.5 or 0.7."""
    negatives_per_positive: int = 0
    """Within hard_examples: at most so many negatives for each positive, and positives no more than
    their part (SSD, arXiv 1512.02325, section 2.2: 3). 0: no quota."""
    normalizer: str = "batch"
    """By what the sum over the anchors is divided: the positives, counted as `divisors` in
    loss_normalizer.py says. batch: of the whole batch (the paper); batch_plus_one: and 1 (TF);
    images_plus_one: and 1 for each image (Detectron); images_or_one: an image without any counts as
    one with one (MMDetection); image: of each image (torchvision); level: of each pyramid level
    (NVIDIA); running: a running mean (Detectron2)."""

    def __post_init__(self):
        for name in ("gamma", "beta", "box_weight"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"loss.{name}: {value} is not a finite number of at least 0")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError(f"loss.alpha: {self.alpha} is not in [0, 1]; None is off")
        for name, known in (
            ("classification", CLASS_LOSSES),
            ("box", (*OF_DELTAS, *OF_BOXES)),
            ("normalizer", NORMALIZERS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"loss.{name}: {getattr(self, name)!r} is not one of {', '.join(known)}"
                )
        if self.classification == "focal_star" and not self.gamma > 0:
            raise ValueError(
                "loss.gamma: focal_star divides by it; write a number above 0, such as 2, or "
                "loss.classification=cross_entropy"
            )
        for name in ("hard_examples", "negatives_per_positive"):
            if getattr(self, name) < 0:
                raise ValueError(f"loss.{name}: {getattr(self, name)} is not 0 (off) or more")
        if not 0 <= self.hard_examples_iou <= 1:
            raise ValueError(f"loss.hard_examples_iou: {self.hard_examples_iou} is not in [0, 1]")
        if self.negatives_per_positive and self.hard_examples <= self.negatives_per_positive:
            raise ValueError(
                f"loss.hard_examples: {self.hard_examples} has no room for a positive and "
                f"{self.negatives_per_positive} negatives; write 128, or "
                "loss.negatives_per_positive=0"
            )

    @property
    def needs_quality(self) -> bool:
        """Whether the class targets of positives are the IoU of their predicted boxes."""
        return CLASS_LOSSES[self.classification].of_quality
