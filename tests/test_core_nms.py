"""NMS against a box-by-box greedy in numpy, torchvision's results and its own laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet_jax.core.nms import nms


def iou_with(box, others):
    """IoU of one box with many, in the order of operations of torchvision, 0/0 as 0."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    width, height = np.maximum(high - low, 0).T
    intersection = width * height
    area = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    union = (box[2] - box[0]) * (box[3] - box[1]) + area - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def greedy(boxes, scores, valid, iou_threshold, labels=None):
    """The textbook algorithm: falling score, lower index first, one box at a time."""
    labels = np.zeros(len(boxes), int) if labels is None else labels
    kept = []
    for i in sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i)):
        rivals = [j for j in kept if labels[j] == labels[i]]
        if not rivals or not (iou_with(boxes[i], boxes[rivals]) > iou_threshold).any():
            kept.append(i)
    return np.array(kept, np.int32)


def class_wise(boxes, scores, valid, labels, iou_threshold, max_outputs):
    return nms(
        boxes, scores, valid, iou_threshold=iou_threshold, max_outputs=max_outputs, labels=labels
    )


def kept_indices(result):
    indices, found = map(np.asarray, result)
    count = int(found.sum())
    assert found[:count].all(), "the kept ones come first"
    assert (indices[count:] == 0).all()
    return indices[:count]


def random_boxes(seed, count, spread=200.0, decimals=0):
    """Boxes around the origin, so that many coordinates are negative; rounding makes ties."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-spread, spread, (count, 2))
    size = rng.uniform(0, 120, (count, 2))
    boxes = np.concatenate([corner, corner + size], 1)
    return np.round(boxes, decimals).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    iou_threshold=st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95]),
    num_labels=st.sampled_from([1, 3, 400]),
    score_levels=st.sampled_from([1, 10, 10**6]),
    share_valid=st.sampled_from([0.0, 0.5, 1.0]),
    spread=st.sampled_from([5.0, 100.0, 600.0]),
)
def test_equals_plain_greedy(seed, iou_threshold, num_labels, score_levels, share_valid, spread):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(seed, 300, spread)
    scores = (rng.integers(0, score_levels, 300) / score_levels).astype(np.float32)
    labels = rng.integers(0, num_labels, 300).astype(np.int32)
    valid = rng.uniform(size=300) < share_valid
    want = greedy(boxes, scores, valid, iou_threshold, labels)
    got = class_wise(boxes, scores, valid, labels, iou_threshold, 300)
    np.testing.assert_array_equal(kept_indices(got), want)
    # A shorter output is the longer one's beginning, whatever block it ends in.
    got = class_wise(boxes, scores, valid, labels, iou_threshold, 40)
    np.testing.assert_array_equal(kept_indices(got), want[:40])


@pytest.mark.parametrize("iou_threshold", [0.05, 0.3, 0.5, 0.7, 0.95])
def test_chains_of_boxes_over_many_blocks(iou_threshold):
    """Each box overlaps its neighbours, so that one decision depends on hundreds before it."""
    start = np.arange(1000, dtype=np.float32)[:, None] * (1 - iou_threshold) * 40
    # The chain begins at the second box: every second one is kept, also the last of a block, which
    # suppresses the first of the next.
    start[0] = -1000
    boxes = np.concatenate([start, start * 0, start + 60, start * 0 + 60], 1).astype(np.float32)
    scores = np.linspace(1, 0, 1000, dtype=np.float32)
    valid = np.ones(1000, bool)
    got = nms(boxes, scores, valid, iou_threshold=iou_threshold, max_outputs=1000)
    np.testing.assert_array_equal(kept_indices(got), greedy(boxes, scores, valid, iou_threshold))


@pytest.mark.parametrize("case", ["vanilla", "offset", "ties"])
def test_torchvision_class_wise(golden_dir, case):
    """Golden batched_nms at 0.5; equal scores may come in another order than torchvision's.

    It is that which goes class by class. The other, for few boxes, adds offsets to the coordinates,
    whose rounding decides about pairs that are within 1e-4 of the threshold.
    """
    names = ("boxes", "scores", "labels", "keep_vanilla")
    with np.load(golden_dir / "units.npz") as units:
        data = {name: units[f"nms/{case}/{name}"] for name in names}
    boxes, scores = data["boxes"], data["scores"]
    labels = data["labels"].astype(np.int32)
    valid = np.ones(len(boxes), bool)
    got = kept_indices(class_wise(boxes, scores, valid, labels, 0.5, len(boxes)))
    assert set(got) == set(data["keep_vanilla"])
    np.testing.assert_array_equal(scores[got], scores[data["keep_vanilla"]])
    np.testing.assert_array_equal(got, greedy(boxes, scores, valid, 0.5, labels))


@pytest.mark.parametrize("case", ["vanilla", "offset", "ties"])
def test_torchvision_without_classes(golden_dir, case):
    with np.load(golden_dir / "units.npz") as units:
        prefix = f"nms/{case}/plain_keep_"
        wanted = {float(key[len(prefix) :]): units[key] for key in units if key.startswith(prefix)}
        boxes, scores = units[f"nms/{case}/boxes"], units[f"nms/{case}/scores"]
    assert wanted, "the golden file has plain_keep_T entries"
    valid = np.ones(len(boxes), bool)
    for threshold, keep in wanted.items():
        got = nms(boxes, scores, valid, iou_threshold=threshold, max_outputs=len(boxes))
        assert set(kept_indices(got)) == set(keep)


def test_negative_coordinates_and_translation():
    boxes, valid = random_boxes(0, 200), np.ones(200, bool)
    scores = np.random.default_rng(1).uniform(size=200).astype(np.float32)
    for shift in (-5000.0, 5000.0):
        moved = nms(boxes + np.float32(shift), scores, valid, iou_threshold=0.5, max_outputs=200)
        here = nms(boxes, scores, valid, iou_threshold=0.5, max_outputs=200)
        np.testing.assert_array_equal(kept_indices(moved), kept_indices(here))


def test_threshold_is_strict():
    # IoU of [0, 0, 2, 1] with [0, 0, 1, 1] is 1/2, exactly.
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], np.float32)
    scores, valid = np.array([0.9, 0.8], np.float32), np.ones(2, bool)
    assert len(kept_indices(nms(boxes, scores, valid, iou_threshold=0.5, max_outputs=2))) == 2
    assert len(kept_indices(nms(boxes, scores, valid, iou_threshold=0.49, max_outputs=2))) == 1


def test_zero_area_boxes_survive():
    """Their IoU is 0/0, read as 0: torchvision keeps them too."""
    boxes = np.array([[5, 5, 5, 5]] * 3 + [[0, 0, 10, 10]], np.float32)
    scores, valid = np.full(4, 0.5, np.float32), np.ones(4, bool)
    got = nms(boxes, scores, valid, iou_threshold=0.05, max_outputs=4)
    np.testing.assert_array_equal(kept_indices(got), [0, 1, 2, 3])


def test_ties_take_the_lower_index():
    boxes = np.tile(np.array([[0, 0, 10, 10]], np.float32), (500, 1))
    scores, valid = np.full(500, 0.5, np.float32), np.ones(500, bool)
    valid[:7] = False
    got = nms(boxes, scores, valid, iou_threshold=0.5, max_outputs=10)
    np.testing.assert_array_equal(kept_indices(got), [7])


def test_invalid_boxes_do_not_suppress():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], np.float32)
    scores = np.array([0.9, 0.1], np.float32)
    got = nms(boxes, scores, np.array([False, True]), iou_threshold=0.5, max_outputs=2)
    np.testing.assert_array_equal(kept_indices(got), [1])


def test_low_scores_of_any_sign_are_kept():
    boxes = random_boxes(3, 50, spread=10000.0)
    scores = np.linspace(-3, 1, 50, dtype=np.float32)
    scores[0] = -np.inf
    got = nms(boxes, scores, np.ones(50, bool), iou_threshold=0.5, max_outputs=60)
    np.testing.assert_array_equal(kept_indices(got), np.arange(50)[::-1])


def test_no_boxes():
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, bool)
    indices, found = nms(*empty, iou_threshold=0.5, max_outputs=5)
    assert indices.shape == (5,) and not np.asarray(found).any()


def test_needs_an_output():
    with pytest.raises(ValueError, match="max_outputs: 0 must be at least 1"):
        nms(
            np.zeros((1, 4), np.float32),
            np.zeros(1, np.float32),
            np.ones(1, bool),
            iou_threshold=0.5,
            max_outputs=0,
        )


def test_vmap_and_jit_equal_the_single_call():
    """Images of one batch end after different numbers of blocks and rounds."""
    boxes = np.stack([random_boxes(seed, 150, spread) for seed, spread in enumerate((5, 80, 900))])
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=(3, 150)).astype(np.float32)
    labels = rng.integers(0, 2, (3, 150)).astype(np.int32)
    valid = rng.uniform(size=(3, 150)) < np.array([[1.0], [0.6], [0.0]])
    function = functools.partial(class_wise, iou_threshold=0.4, max_outputs=100)
    batched = jax.jit(jax.vmap(function))(boxes, scores, valid, labels)
    for i in range(3):
        with jax.disable_jit(i == 0):
            single = function(boxes[i], scores[i], valid[i], labels[i])
        for one, many in zip(single, batched, strict=True):
            assert jnp.array_equal(one, many[i])
