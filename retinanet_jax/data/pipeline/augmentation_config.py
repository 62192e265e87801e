"""Settings of the augmentation of training images, and the augmentations added by name."""

import dataclasses
from collections.abc import Callable

import numpy as np

from retinanet_jax.core.field_checks import one_of
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.pipeline.canvas import PipelineConfig

Range = tuple[float | int, float | int]

AUGMENTATIONS: dict[str, Callable[[Example, np.random.Generator], Example]] = {}
"""The values of `augmentation.own`. A function changes image, boxes and labels of an example as it
is stored; the image keeps its size. Its random numbers come from the generator alone."""


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation of training images. The default is the paper's: flips alone (section 4).

    The steps, in order: a mosaic may join four images. The crop takes a window of each image. The
    window is resized to one of `scales`, times the scale jitter, and cut if it is larger than the
    canvas or its quadrant of the mosaic. Mixup may add another image. Copy-paste may add objects of
    another image. Then the result may be mirrored, and its colours are changed. In a mosaic, an
    image has the size that it would have alone, so a scale jitter that begins below 1, such as
    (0.5, 1.5), shows more of each.

    Attributes:
      own: names in AUGMENTATIONS, applied in this order to each stored image, before everything
        else. CONTRIBUTING.md shows how to add one.
      flip: whether half of the images are mirrored, left and right.
      scales: short sides in pixels, one of which is drawn instead of pipeline.min_side; (): always
        pipeline.min_side. detectron2's models: 640 to 800 in steps of 32. The long side is at most
        pipeline.max_side; canvases are as large as the largest scale needs.
      scale_jitter: lowest and highest factor on that size, drawn uniformly; above 1 it crops a
        random window. Large scale jitter is (0.1, 2.0) on a square canvas (Ghiasi et al.,
        arXiv 2012.07177, section 3; min_side = max_side = 1024).
      crop: lowest and highest fraction of the height, and independently of the width, of a random
        window (detectron2's RandomCrop of type relative_range); (1, 1): the whole image.
      min_visible_share: a box is dropped if less than this fraction of its area is visible after
        cropping, since the rest seldom shows what it is. 0 keeps every visible box.
      brightness, contrast, saturation: the factor is drawn from 1 - value to 1 + value, value in
        [0, 1]; 0 is off. See data/pipeline/color.py, also for the source and for the next.
      hue: the turn is drawn from -value to value, in whole turns, value in [0, 0.5]; 0 is off.
      mosaic: probability that an image becomes one of four, the other three drawn uniformly from
        the dataset (YOLOv4, arXiv 2004.10934); image id and canvas are those of the first. It
        has more boxes, see pipeline.max_boxes, and costs the reading of four images.
      mixup: probability that an image becomes the mean of itself and another one, drawn uniformly
        from the dataset, with the boxes of both (YOLOX, arXiv 2107.08430). Costs the reading of
        another image.
      copy_paste: probability that an image gets a random half of the objects of another one, drawn
        uniformly from the dataset, each as its box (after Ghiasi et al., arXiv 2012.07177, who
        have masks). Costs the reading of another image.
      close_mosaic: number of epochs at the end of the run without mosaic, mixup and copy-paste,
        whose images are unlike those of evaluation (YOLOX, arXiv 2107.08430: 15 of 300).
    """

    own: tuple[str, ...] = ()
    flip: bool = True
    scales: tuple[int, ...] = ()
    scale_jitter: Range = (1.0, 1.0)
    crop: Range = (1.0, 1.0)
    min_visible_share: float = 0.25
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    close_mosaic: float = 0.0

    def __post_init__(self):
        for name in self.own:
            one_of("augmentation.own", name, AUGMENTATIONS)
        shares = ("min_visible_share", "brightness", "contrast", "saturation")
        shares += ("mosaic", "mixup", "copy_paste")
        for name, limit in [(name, 1) for name in shares] + [("hue", 0.5)]:
            _require(
                0 <= getattr(self, name) <= limit, name, getattr(self, name), f"from 0 to {limit}"
            )
        for name, limit in (("scale_jitter", np.inf), ("crop", 1)):
            low, high = getattr(self, name)
            wanted = f"(low, high) with 0 < low <= high{' <= 1' if limit == 1 else ''}"
            _require(0 < low <= high <= limit, name, getattr(self, name), wanted)
        _require(
            min(self.scales, default=1) >= 1,
            "scales",
            self.scales,
            "short sides of at least 1 pixel",
        )
        _require(self.close_mosaic >= 0, "close_mosaic", self.close_mosaic, "at least 0 epochs")

    def changes_colors(self) -> bool:
        """Returns whether any of the four colour fields is on."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    def of_single_images(self) -> "AugmentationConfig":
        """Returns the config without mosaic, mixup and copy-paste; other draws do not change."""
        return dataclasses.replace(self, mosaic=0.0, mixup=0.0, copy_paste=0.0)


def _require(holds: bool, field: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"augmentation.{field}: {value} must be {wanted}")


def with_largest_scale(settings: PipelineConfig, config: AugmentationConfig) -> PipelineConfig:
    """Returns training settings whose canvases hold images of the largest of `scales`.

    Raises:
      ValueError: a scale is larger than the limit of the long side.
    """
    min_side = max(config.scales, default=settings.min_side)
    wanted = f"at most pipeline.max_side, {settings.max_side}"
    _require(min_side <= settings.max_side, "scales", config.scales, wanted)
    return dataclasses.replace(settings, min_side=min_side)
