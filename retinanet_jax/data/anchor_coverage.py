"""Computes how well the anchors cover a dataset: the exact best IoU of every box.

A box whose best IoU over all anchors is below `matching.positive_iou` (0.5) gets no positive anchor
by the rule of the paper (arXiv 1708.02002, section 4), only low-quality matches, one or a few. A
box below `matching.negative_iou` (0.4) is called uncovered here: hundreds of anchors near it are
background, and one is a positive. Without low-quality matches, it has no positive at all.

The best IoU does not need the matrix of all anchors. The anchors of one shape have the same area,
so that their IoU with a box grows with the intersection. That is the product of an overlap in x and
an overlap in y, and each is largest for the column, or row, nearest to the center of the box.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from retinanet_jax.core.anchors import AnchorConfig, cell_anchors, grid_centres
from retinanet_jax.core.matching import MatchingConfig
from retinanet_jax.data.object_table import ObjectTable, fit_objects
from retinanet_jax.data.pipeline.canvas import PipelineConfig

STATES = ("positive", "between", "uncovered")


class Coverage(NamedTuple):
    """The best anchor for each of m boxes.

    iou: with that anchor.
    level: index of its level in `AnchorConfig.levels`; the finest of equals.
    shape: index in `cell_anchors`; the first of equals.
    """

    iou: Float[np.ndarray, " m"]
    level: Int[np.ndarray, " m"]
    shape: Int[np.ndarray, " m"]

    def uncovered(self, matching: MatchingConfig) -> Bool[np.ndarray, " m"]:
        """Returns which boxes have background anchors only, by their IoU."""
        return self.iou < matching.negative_iou

    def positive(self, matching: MatchingConfig) -> Bool[np.ndarray, " m"]:
        """Returns which boxes have a positive anchor, by its IoU."""
        return self.iou >= matching.positive_iou

    def states(self, matching: MatchingConfig) -> Int[np.ndarray, " m"]:
        """Indices into STATES."""
        return np.where(self.positive(matching), 0, np.where(self.uncovered(matching), 2, 1))


def box_coverage(
    boxes: Float[np.ndarray, "m 4"], canvases: Int[np.ndarray, "m 2"], config: AnchorConfig
) -> Coverage:
    """Returns the coverage of boxes, each on its own canvas.

    Args:
      boxes: xyxy pixels of the network's input.
      canvases: (height, width) of the network's input, for each box.
      config: the anchors.
    """
    iou = np.zeros(len(boxes), np.float32)
    level, shape = np.zeros((2, len(boxes)), int)
    for canvas in np.unique(canvases, axis=0).tolist():
        here = (canvases == canvas).all(axis=1)
        by_shape = iou_by_shape(boxes[here], tuple(canvas), config)
        flat = by_shape.reshape(len(by_shape), -1)
        iou[here] = flat.max(axis=1)
        level[here], shape[here] = np.divmod(flat.argmax(axis=1), config.anchors_per_location)
    return Coverage(iou, level, shape)


def object_coverage(
    objects: ObjectTable, pipeline: PipelineConfig, anchors: AnchorConfig
) -> Coverage:
    """Returns the coverage of objects, resized as for the network."""
    fitted = fit_objects(objects, pipeline)
    return box_coverage(fitted.boxes, fitted.canvases[objects.image], anchors)


def iou_by_shape(
    boxes: Float[np.ndarray, "m 4"], canvas: tuple[int, int], config: AnchorConfig
) -> Float[np.ndarray, "m levels shapes"]:
    """Returns the best IoU of each box over the anchors of each level and shape.

    The values are those of `boxes.pairwise_iou` with `anchors_for_image`. This is numpy because the
    number of boxes differs from call to call, and JAX would compile each time.

    Args:
      boxes: xyxy pixels of the network's input.
      canvas: (height, width) of the network's input.
      config: the anchors.
    """
    levels = []
    areas = _length(boxes[:, 0::2]) * _length(boxes[:, 1::2])
    for level, (rows, columns) in zip(config.levels, grid_centres(canvas, config), strict=True):
        cell = cell_anchors(level, config)
        wide, width = _overlap(boxes[:, 0::2], columns, cell[:, 0::2])
        high, height = _overlap(boxes[:, 1::2], rows, cell[:, 1::2])
        common = wide * high
        union = areas[:, None] + width * height - common
        levels.append(np.divide(common, union, out=np.zeros_like(common), where=common > 0))
    return np.stack(levels, axis=1)


def best_anchor(
    box: Float[np.ndarray, "4"],
    canvas: tuple[int, int],
    level: int,
    shape: int,
    config: AnchorConfig,
) -> Float[np.ndarray, "4"]:
    """Returns the best anchor of a box, xyxy pixels.

    `level` and `shape` are from `box_coverage`.
    """
    rows, columns = grid_centres(canvas, config)[level]
    x = columns[_nearest(box[None, 0::2], columns)[0]]
    y = rows[_nearest(box[None, 1::2], rows)[0]]
    cell = cell_anchors(config.levels[level], config)[shape]
    return (cell + np.array([x, y, x, y])).astype(np.float32)


def _overlap(
    ends: Float[np.ndarray, "m 2"], centres: Float[np.ndarray, " n"], cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: the overlap of each box with the nearest anchor of each shape; its length.

    `ends` are the first and last coordinates of the boxes, `cell` [shapes 2] those of the anchors
    around 0. Rounds to float32 where `anchors_for_image` does.
    """
    centre = centres[_nearest(ends, centres)][:, None]
    low, high = (centre + cell[:, 0]).astype(np.float32), (centre + cell[:, 1]).astype(np.float32)
    common = np.minimum(high, ends[:, 1:]) - np.maximum(low, ends[:, :1])
    return np.maximum(common, 0), high - low


def _nearest(ends: Float[np.ndarray, "m 2"], centres: np.ndarray) -> Int[np.ndarray, " m"]:
    """Index of the center nearest to the middle of each box; `centres` are evenly spaced."""
    step = centres[1] - centres[0] if len(centres) > 1 else 1
    place = np.rint((ends.mean(axis=1, dtype=np.float64) - centres[0]) / step)
    return np.clip(place, 0, len(centres) - 1).astype(int)


def _length(ends: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, " m"]:
    return np.maximum(ends[:, 1] - ends[:, 0], 0)
