"""Weighted boxes: golden numbers, the algorithm written out in NumPy, padding, no boxes."""

import numpy as np
import pytest

from retinanet_jax.core.postprocess import Detections, PostprocessConfig
from retinanet_jax.inference.test_time_augmentation import merge
from retinanet_jax.inference.weighted_boxes import fuse_boxes


def fuse(boxes, scores, labels, valid=None, iou=0.5, count=None):
    count = len(scores) if count is None else count
    valid = np.ones(len(scores), bool) if valid is None else valid
    arrays = np.float32(boxes).reshape(-1, 4), np.float32(scores), np.int32(labels), valid
    *parts, kept = fuse_boxes(*arrays, iou_threshold=iou, max_outputs=count)
    return [np.asarray(part)[np.asarray(kept)] for part in parts]


def test_a_fused_box_is_the_weighted_mean_with_the_highest_score():
    boxes = [[0, 0, 10, 10], [2, 0, 12, 10], [40, 40, 50, 50], [0, 0, 10, 10]]
    found, scores, labels = fuse(boxes, [0.9, 0.3, 0.6, 0.5], [0, 0, 0, 1])
    # IoU of the first two: 80 / 120 = .67. (0 * .9 + 2 * .3) / 1.2 = .5
    expected = [[0.5, 0, 10.5, 10], [40, 40, 50, 50], [0, 0, 10, 10]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(scores, [0.9, 0.6, 0.5], rtol=1e-6)
    assert labels.tolist() == [0, 0, 1]


def by_hand(boxes, scores, labels, iou):
    """Section 3 of arXiv 1910.13302, one box after the other; the score is the highest."""
    clusters = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        best, best_iou = None, iou
        for cluster in clusters:
            weights = scores[cluster][:, None]
            mean = (boxes[cluster] * weights).sum(0) / weights.sum()
            low, high = np.maximum(mean[:2], boxes[i, :2]), np.minimum(mean[2:], boxes[i, 2:])
            common = np.prod(np.maximum(high - low, 0))
            areas = np.prod(mean[2:] - mean[:2]) + np.prod(boxes[i, 2:] - boxes[i, :2])
            overlap = common / (areas - common)
            if labels[cluster[0]] == labels[i] and overlap > best_iou:
                best, best_iou = cluster, overlap
        if best is None:
            clusters.append([i])
        else:
            best.append(i)
    means = [np.average(boxes[c], axis=0, weights=scores[c]) for c in clusters]
    return (
        np.array(means),
        np.array([scores[c[0]] for c in clusters]),
        [labels[c[0]] for c in clusters],
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_result_is_that_of_the_algorithm_written_out(seed):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(20, 80, (6, 1, 2)) + rng.normal(0, 3, (6, 10, 2))
    sides = rng.uniform(8, 30, (6, 1, 2)) * rng.uniform(0.8, 1.25, (6, 10, 2))
    boxes = np.concatenate([centers - sides / 2, centers + sides / 2], -1).reshape(-1, 4)
    scores, labels = rng.uniform(0.05, 1, 60), rng.integers(0, 2, 60)
    expected = by_hand(boxes, scores, labels, 0.5)
    found = fuse(boxes, scores, labels)
    assert 6 < len(found[0]) < 40
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    assert found[2].tolist() == expected[2]


def test_padding_is_ignored_and_the_best_are_returned():
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30], [50, 0, 60, 10]])
    valid = np.array([True, False, True, True])
    found, scores, _ = fuse(boxes, [0.5, 0.9, 0.7, 0.6], [0, 0, 0, 0], valid, count=2)
    np.testing.assert_allclose(scores, [0.7, 0.6], rtol=1e-6)
    np.testing.assert_array_equal(found, boxes[2:])
    assert len(fuse(boxes, [0.5] * 4, [0] * 4, np.zeros(4, bool))[0]) == 0


def test_views_are_merged_as_weighted_boxes_on_request():
    def view(x):
        boxes = np.float32([[x, 0, x + 10, 10], [0, 0, 0, 0]])
        return Detections(boxes, np.float32([0.8, 0]), np.int32([0, -1]), np.array([True, False]))

    config = PostprocessConfig(max_detections=3)
    for how, left in (("nms", 0), ("weighted", 1)):
        found = merge([view(0), view(2)], config, how)
        assert np.asarray(found.valid).tolist() == [True, False, False]
        np.testing.assert_allclose(found.boxes[0], [left, 0, left + 10, 10], atol=1e-6)
