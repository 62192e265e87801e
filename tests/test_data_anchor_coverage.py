"""The best anchor of every box against the IoU matrix of all anchors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image
from retinanet_jax.core.boxes import pairwise_iou
from retinanet_jax.data.anchor_coverage import Coverage, best_anchor, box_coverage, iou_by_shape

# The oracle compiles once per canvas.
CANVASES = [(96, 160), (160, 96), (101, 67), (64, 64), (20, 300)]
COUNT = 40


def random_boxes(seed: int, canvas: tuple[int, int]) -> np.ndarray:
    """Boxes with sides of 0.1 to 1000 pixels, some at or beyond the borders of the canvas."""
    rng = np.random.default_rng(seed)
    height, width = canvas
    centres = rng.uniform(-0.2, 1.2, (COUNT, 2)) * (width, height)
    sides = np.exp(rng.uniform(np.log(0.1), np.log(1000), (COUNT, 2)))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    inside = np.clip(boxes, 0, [width, height] * 2)
    # Half of them are on whole strides, where two anchors are equally near.
    boxes = np.where(rng.random((COUNT, 1)) < 0.5, inside, boxes)
    return np.where(rng.random((COUNT, 1)) < 0.5, np.round(boxes / 4) * 4, boxes).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    canvas=st.sampled_from(CANVASES),
    size=st.sampled_from([1.0, 2.5, 4.0]),
    center=st.sampled_from([0.0, 0.5, 0.25]),
    order=st.sampled_from(["scale_major", "ratio_major"]),
    rounding=st.sampled_from(["none", "torchvision"]),
    strides=st.sampled_from(["power_of_two", "grid"]),
    ratios=st.sampled_from([(0.5, 1.0, 2.0), (0.1, 0.7, 9.0)]),
)
def test_best_anchor_equals_the_maximum_over_all_anchors(seed, canvas, **fields):
    config = AnchorConfig(max_level=6, **fields)
    boxes = random_boxes(seed, canvas)
    levels = anchors_for_image(canvas, config)
    # For each level and shape, the best over the grid.
    shapes = config.anchors_per_location
    oracle = np.asarray(pairwise_iou(np.concatenate(levels), boxes))
    ends = np.cumsum([len(anchors) for anchors in levels])
    expected = [
        part.reshape(-1, shapes, COUNT).max(axis=0).T for part in np.split(oracle, ends[:-1])
    ]
    found = iou_by_shape(boxes, canvas, config)
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=2e-6)

    coverage = box_coverage(boxes, np.tile(canvas, (COUNT, 1)), config)
    np.testing.assert_allclose(coverage.iou, oracle.max(axis=0), atol=2e-6)
    places = zip(boxes, coverage.level.tolist(), coverage.shape.tolist(), strict=True)
    anchors = np.stack([best_anchor(box, canvas, *place, config) for box, *place in places])
    overlaps = np.diag(np.asarray(pairwise_iou(anchors, boxes)))
    np.testing.assert_allclose(overlaps, coverage.iou, atol=2e-6)
    # It is an anchor of its level.
    for anchor, level in zip(anchors, coverage.level, strict=True):
        assert np.abs(levels[level] - anchor).max(axis=1).min() < 1e-4


def test_each_box_has_its_own_canvas():
    config = AnchorConfig()
    box = np.float32([[110, 10, 140, 40]])
    alone = [
        box_coverage(box, np.array([canvas]), config).iou[0] for canvas in [(64, 64), (64, 160)]
    ]
    together = box_coverage(np.tile(box, (2, 1)), np.array([(64, 64), (64, 160)]), config).iou
    assert together.tolist() == alone and alone[0] < alone[1]


def test_an_anchor_covers_itself():
    config = AnchorConfig()
    for level, anchors in enumerate(anchors_for_image((128, 160), config)):
        canvases = np.tile((128, 160), (len(anchors), 1))
        found = box_coverage(anchors, canvases, config)
        np.testing.assert_allclose(found.iou, 1, atol=1e-6)
        assert (found.level == level).all()
        assert (found.shape == np.tile(np.arange(9), len(anchors) // 9)).all()


def test_no_boxes_and_boxes_without_area():
    none = box_coverage(np.zeros((0, 4), np.float32), np.zeros((0, 2), int), AnchorConfig())
    assert isinstance(none, Coverage) and len(none.iou) == 0
    flat = np.float32([[5, 5, 5, 20], [0, 0, 0, 0]])
    found = box_coverage(flat, np.full((2, 2), 64), AnchorConfig())
    assert found.iou == pytest.approx([0, 0])
