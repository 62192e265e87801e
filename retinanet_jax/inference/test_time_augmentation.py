"""Test-time augmentation: detects in several views of an image, and merges the detections.

A view is a scale, mirrored or not, as in Detectron's test-time augmentation. Detections are mapped
back to the image, and merged over all views by NMS or as weighted boxes.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.core.postprocess import Detections, PostprocessConfig, suppress
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.pipeline.canvas import PipelineConfig
from retinanet_jax.data.pipeline.input_pipeline import fit
from retinanet_jax.data.pipeline.transforms import mirror
from retinanet_jax.inference.weighted_boxes import fuse_boxes

MERGES = ("nms", "weighted")


class View(NamedTuple):
    """How the network sees an image: its sides times `scale`, mirrored left to right or not."""

    scale: float | int = 1.0
    flip: bool = False


PLAIN = (View(),)


def views_of(flip: bool, scales: Sequence[float | int]) -> tuple[View, ...]:
    """Returns a view for every scale; with `flip`, also mirrored ones.

    Raises:
      ConfigError: no scale is given, or one is not positive.
    """
    is_some = isinstance(scales, Sequence) and len(scales) > 0
    if not is_some or not all(isinstance(s, numbers.Real) and 0 < s < math.inf for s in scales):
        raise ConfigError(f"scales: {scales} is not a list of positive numbers; write (1.0, 1.5)")
    flips = (False, True) if flip else (False,)
    return tuple(View(scale, mirrored) for scale in scales for mirrored in flips)


class ViewOptions(NamedTuple):
    """Test-time augmentation, with the arguments of a call of the Detector."""

    flip: bool = False
    scales: Sequence[float | int] = (1.0,)
    merge: str = "nms"

    @property
    def views(self) -> tuple[View, ...]:
        """See `views_of`."""
        return views_of(self.flip, self.scales)


ONE_VIEW = ViewOptions()


def scaled(settings: PipelineConfig, view: View) -> PipelineConfig:
    """Returns the settings by which the images of a view are resized."""
    sides = {name: getattr(settings, name) for name in ("min_side", "max_side")}
    sides = {name: max(1, round(view.scale * side)) for name, side in sides.items()}
    return dataclasses.replace(settings, **sides)


def see(example: Example, view: View, settings: PipelineConfig) -> Example:
    """Returns the example, without boxes, as the view shows it; `settings` come from `scaled`."""
    fitted = fit(example, settings)
    return mirror(fitted) if view.flip else fitted


def map_back(found: Detections, view: View, width: int) -> Detections:
    """Maps the detections of a view to pixels of the image, which has this width."""
    if not view.flip:
        return found
    x1, y1, x2, y2 = np.moveaxis(found.boxes, -1, 0)
    return found._replace(boxes=np.stack([width - x2, y1, width - x1, y2], axis=-1))


def check_merge(how: Any) -> None:
    """Raises ConfigError for an unknown way of merging."""
    if how not in MERGES:
        raise ConfigError(f"merge: {how!r} is not one of {', '.join(MERGES)}")


@functools.partial(jax.jit, static_argnames=("config", "how"))
def merge(found: Sequence[Detections], config: PostprocessConfig, how: str = "nms") -> Detections:
    """Returns the max_detections best of all views, with the boxes of each object merged.

    Args:
      found: detections of each view, all in pixels of the same image, with their masks `valid`.
      config: settings of NMS; 'weighted' reads nms_iou and max_detections.
      how: 'nms', of the kind config.nms, keeps the box with the highest score of overlapping boxes;
        'weighted' takes their mean, see weighted_boxes.py.
    """
    every = Detections(*(jnp.concatenate(part) for part in zip(*found, strict=True)))
    if how == "weighted":
        limits = {"iou_threshold": config.nms_iou, "max_outputs": config.max_detections}
        return Detections(*fuse_boxes(*every, **limits))
    return suppress(every, config)
