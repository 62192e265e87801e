"""How well anchors cover the objects of a data set: the best IoU of every box, exactly.

A box whose best IoU over all anchors is below `matching.positive_iou` gets no positive anchor by
the rule of the paper (arXiv 1708.02002, section 4), only by a low-quality match, one or a few; and
one below `matching.negative_iou` lies among anchors that are all background but for that match.
Such a box is called uncovered here. With `matching.low_quality` none it is never learnt at all.

The best IoU needs no matrix of all anchors. Anchors of one shape have one area, so that their IoU
with a box grows with the intersection, which is the product of an overlap in x and one in y; each
is largest for the column, or row, of the grid that is nearest to the centre of the box.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from retinanet_jax.anchors import AnchorConfig, cell_anchors, grid_centres
from retinanet_jax.matching import MatchingConfig


class Coverage(NamedTuple):
    """The best anchor of each of m boxes.

    iou: with that anchor.
    level: its place in `AnchorConfig.levels`; the finest of equals.
    shape: its place in `cell_anchors`; the first of equals.
    """

    iou: Float[np.ndarray, " m"]
    level: Int[np.ndarray, " m"]
    shape: Int[np.ndarray, " m"]

    def uncovered(self, matching: MatchingConfig) -> np.ndarray:
        """Which boxes have no anchor that is more than background to them."""
        return self.iou < matching.negative_iou

    def positive(self, matching: MatchingConfig) -> np.ndarray:
        """Which boxes have an anchor that is positive by its IoU."""
        return self.iou >= matching.positive_iou


def measure(
    boxes: Float[np.ndarray, "m 4"], canvases: Int[np.ndarray, "m 2"], config: AnchorConfig
) -> Coverage:
    """The coverage of boxes, each on its own canvas.

    Args:
      boxes: xyxy pixels of the network's input.
      canvases: (height, width) of the network's input in which each box lies.
      config: the anchors.
    """
    iou = np.zeros(len(boxes), np.float32)
    level, shape = np.zeros((2, len(boxes)), int)
    for canvas in np.unique(canvases, axis=0).tolist():
        here = (canvases == canvas).all(axis=1)
        by_shape = iou_by_shape(boxes[here], tuple(canvas), config)
        best = by_shape.reshape(len(by_shape), -1).argmax(axis=1)
        level[here], shape[here] = np.divmod(best, config.anchors_per_location)
        iou[here] = np.take_along_axis(by_shape.reshape(len(best), -1), best[:, None], 1)[:, 0]
    return Coverage(iou, level, shape)


def iou_by_shape(
    boxes: Float[np.ndarray, "m 4"], canvas: tuple[int, int], config: AnchorConfig
) -> Float[np.ndarray, "m levels shapes"]:
    """The best IoU of each box over the anchors of each level and shape.

    The same numbers as `boxes.pairwise_iou` over `anchors_for_image`, in numpy: the number of boxes
    differs from call to call, and a compiled program would be another one each time.

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


def best_anchors(
    boxes: Float[np.ndarray, "m 4"], canvas: tuple[int, int], found: Coverage, config: AnchorConfig
) -> Float[np.ndarray, "m 4"]:
    """The anchors that `measure` found for boxes of one canvas, xyxy pixels."""
    grids = grid_centres(canvas, config)
    anchors = np.empty_like(boxes)
    for i, (box, level, shape) in enumerate(zip(boxes, found.level, found.shape, strict=True)):
        rows, columns = grids[level]
        x = columns[_nearest(box[None, 0::2], columns)[0]]
        y = rows[_nearest(box[None, 1::2], rows)[0]]
        anchors[i] = cell_anchors(config.levels[level], config)[shape] + np.array([x, y, x, y])
    return anchors


def _overlap(
    ends: Float[np.ndarray, "m 2"], centres: Float[np.ndarray, " n"], cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: common length of each box with the nearest anchor of each shape, its length.

    `ends` are the boxes' first and last coordinates, `cell` [shapes 2] those of the anchors around
    0. Rounded to float32 where `anchors_for_image` rounds.
    """
    centre = centres[_nearest(ends, centres)][:, None]
    low, high = (centre + cell[:, 0]).astype(np.float32), (centre + cell[:, 1]).astype(np.float32)
    common = np.minimum(high, ends[:, 1:]) - np.maximum(low, ends[:, :1])
    return np.maximum(common, 0), high - low


def _nearest(ends: Float[np.ndarray, "m 2"], centres: np.ndarray) -> Int[np.ndarray, " m"]:
    """The centre that is nearest to the middle of each box; `centres` rise in equal steps."""
    step = centres[1] - centres[0] if len(centres) > 1 else 1
    place = np.rint((ends.mean(axis=1, dtype=np.float64) - centres[0]) / step)
    return np.clip(place, 0, len(centres) - 1).astype(int)


def _length(ends: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, " m"]:
    return np.maximum(ends[:, 1] - ends[:, 0], 0)
