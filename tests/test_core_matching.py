"""Matching: torchvision's golden matches, the rules by hand, masks, permutations, crowds."""

import re
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image
from retinanet_jax.core.assignment import assign, assign_batch
from retinanet_jax.core.boxes import pairwise_iou
from retinanet_jax.core.iou_matching import match_by_iou, match_in_turn, match_pairs
from retinanet_jax.core.matching import LOW_QUALITY, MatchingConfig
from retinanet_jax.core.targets import IGNORE, NEGATIVE

NO_CROWDS = MatchingConfig(crowd_ioa=None)
ANCHORS = np.concatenate(
    anchors_for_image((64, 96), AnchorConfig(max_level=5, scales=(1,), center=0.5))
)
_assign_jit = jax.jit(assign, static_argnames="config")


def _assign(*arguments, config):
    """Targets as numpy arrays: indexing those of JAX by a mask compiles for each number of hits."""
    return jax.tree.map(np.asarray, _assign_jit(*arguments, config=config))


@partial(jax.jit, static_argnames="config")
def _match_boxes(anchors, gt_boxes, config):
    """IoU of all pairs and the matches of the anchors; every box exists."""
    exists = np.ones(len(gt_boxes), bool)
    matches = match_by_iou(anchors, gt_boxes, exists, config.iou_rules)
    return pairwise_iou(anchors, gt_boxes), matches


def _match(iou, config, valid=None):
    """The matches by both methods, which must agree."""
    iou, rules = np.asarray(iou, np.float32), config.iou_rules
    valid = np.ones(iou.shape[1], bool) if valid is None else np.asarray(valid)
    pairs = match_pairs(iou, valid, rules).tolist()
    columns = jax.numpy.asarray(iou)
    assert match_in_turn(lambda i: columns[:, i], valid, len(iou), rules).tolist() == pairs
    return pairs


def _no_crowd(labels):
    return np.zeros(len(labels), bool)


# Golden values: torchvision's Matcher.


@pytest.mark.parametrize("low_quality", [True, False])
def test_matcher_equals_torchvision(golden_dir, low_quality):
    with np.load(golden_dir / "units.npz") as units:
        anchors, gt_boxes = units["matcher/anchors"], units["matcher/gt"]
        expected = units[f"matcher/matched_low_{low_quality}"].astype(np.int32)
    config = MatchingConfig(low_quality="own_box" if low_quality else "none")
    iou, matches = map(np.asarray, _match_boxes(anchors, gt_boxes, config))
    compared = _compared(iou, matches) if low_quality else slice(None)
    np.testing.assert_array_equal(matches[compared], expected[compared])


def test_matches_of_real_boxes_equal_torchvision(golden_dir):
    with np.load(golden_dir / "v1.npz") as v1:
        anchors = v1["eval/anchors"]
        keys = [key for key in v1.files if key.startswith("train/matched_idxs/")]
        golden = [(v1[key], v1[key.replace("matched_idxs", "resized_boxes")]) for key in keys]
    assert golden
    for expected, gt_boxes in golden:
        iou, matches = map(np.asarray, _match_boxes(anchors, gt_boxes, MatchingConfig()))
        compared = _compared(iou, matches)
        np.testing.assert_array_equal(matches[compared], expected[compared])


def _compared(iou, matches):
    """The anchors on which we agree with torchvision: all, unless a box touches no anchor.

    The best IoU of such a box is 0, every anchor of IoU 0 ties for it, and torchvision makes all of
    them positive, each for its own box. We do not, so that only our positives are left to compare.
    """
    untouched = (iou == 0).all(axis=0).any()
    return matches >= 0 if untouched else np.ones(len(matches), bool)


# The rules, by hand. Rows are anchors, columns boxes.


def test_thresholds():
    iou = [[0.5, 0.1], [0.49, 0.1], [0.4, 0.1], [0.39, 0.1], [0.6, 0.7], [0.7, 0.7], [0, 0]]
    plain = MatchingConfig(low_quality="none")
    assert _match(iou, plain) == [0, IGNORE, IGNORE, NEGATIVE, 1, 0, NEGATIVE]


def test_low_quality_keeps_the_own_box_or_takes_that_box():
    # Box 1 is best met by anchor 0, which overlaps box 0 more; anchors 1 and 2 tie for box 2.
    iou = [[0.6, 0.3, 0.0], [0.1, 0.0, 0.2], [0.0, 0.1, 0.2], [0.9, 0.2, 0.1]]
    assert _match(iou, MatchingConfig(low_quality="own_box")) == [0, 2, 2, 0]
    assert _match(iou, MatchingConfig(low_quality="that_box")) == [1, 2, 2, 0]
    assert _match(iou, MatchingConfig(low_quality="one_anchor")) == [1, 2, NEGATIVE, 0]
    assert _match(iou, MatchingConfig(low_quality="none")) == [0, NEGATIVE, NEGATIVE, 0]


def test_of_ties_one_anchor_takes_the_first():
    """Anchors 0 and 1 are the best of box 0, and anchors 0 and 2 of box 1."""
    iou = np.float32([[0.3, 0.2], [0.3, 0.1], [0.1, 0.2]])
    assert _match(iou, MatchingConfig(low_quality="that_box")) == [1, 0, 1]
    assert _match(iou, MatchingConfig(low_quality="one_anchor")) == [0, NEGATIVE, NEGATIVE]


def test_low_quality_has_a_strict_minimum():
    iou = [[0.4, 0.0], [0.2, 0.0]]
    assert _match(iou, MatchingConfig(low_quality_min_iou=0.39)) == [0, NEGATIVE]
    assert _match(iou, MatchingConfig(low_quality_min_iou=0.4)) == [IGNORE, NEGATIVE]


@pytest.mark.parametrize("low_quality", ["own_box", "that_box", "one_anchor"])
def test_a_box_that_touches_no_anchor_matches_none(low_quality):
    iou = [[0.9, 0], [0, 0], [0, 0]]
    assert _match(iou, MatchingConfig(low_quality=low_quality)) == [0, NEGATIVE, NEGATIVE]


def test_masked_boxes_match_nothing():
    iou = [[0.9, 0.6], [0.3, 0.95]]
    assert _match(iou, MatchingConfig(), valid=[False, True]) == [1, 1]
    assert _match(iou, MatchingConfig(), valid=[False, False]) == [NEGATIVE, NEGATIVE]


# Targets.


def test_targets_are_the_matched_boxes():
    gt_boxes = np.array([[0, 0, 31, 33], [40, 8, 70, 40], [0, 0, 0, 0]], np.float32)
    labels = np.array([7, 0, -1], np.int32)
    targets = _assign(ANCHORS, gt_boxes, labels, _no_crowd(labels), config=MatchingConfig())
    matches = np.asarray(_match_boxes(ANCHORS, gt_boxes[:2], MatchingConfig())[1])
    positive = matches >= 0
    assert set(matches[positive]) == {0, 1}
    np.testing.assert_array_equal(targets.labels[positive], labels[matches[positive]])
    np.testing.assert_array_equal(targets.labels[~positive], matches[~positive])
    np.testing.assert_array_equal(targets.boxes[positive], gt_boxes[matches[positive]])
    assert not targets.boxes[~positive].any()


def test_crowds_ignore_the_negatives_inside():
    gt_boxes = np.array([[0, 0, 32, 32], [0, 0, 48, 64]], np.float32)
    labels, crowd = np.array([3, 5], np.int32), np.array([False, True])
    with_crowd, without = (
        _assign(ANCHORS, gt_boxes, labels, crowd, config=config).labels
        for config in (MatchingConfig(), NO_CROWDS)
    )
    width = np.minimum(ANCHORS[:, 2], 48) - np.maximum(ANCHORS[:, 0], 0)
    height = np.minimum(ANCHORS[:, 3], 64) - np.maximum(ANCHORS[:, 1], 0)
    area = (ANCHORS[:, 2] - ANCHORS[:, 0]) * (ANCHORS[:, 3] - ANCHORS[:, 1])
    inside = width.clip(0) * height.clip(0) / area >= 0.5
    np.testing.assert_array_equal(
        with_crowd, np.where(inside & (without == NEGATIVE), IGNORE, without)
    )
    assert (with_crowd != without).any()
    assert 5 not in with_crowd, "nothing is matched to a crowd"
    only_box = _assign(ANCHORS, gt_boxes[:1], labels[:1], crowd[:1], config=NO_CROWDS).labels
    np.testing.assert_array_equal(without, only_box)


def test_two_crowds_do_not_ignore_an_anchor_together():
    """30% of the anchor lies in each of them, and one alone must have half of it."""
    anchor = np.array([[0, 0, 100, 100]], np.float32)
    crowds = np.array([[0, 0, 30, 100], [70, 0, 100, 100]], np.float32)
    labels, crowd = np.zeros(2, np.int32), np.ones(2, bool)
    found = assign(anchor, crowds, labels, crowd, MatchingConfig())
    assert found.labels.tolist() == [NEGATIVE]
    half = crowds.copy()
    half[0, 2] = 50
    found = assign(anchor, half, labels, crowd, MatchingConfig())
    assert found.labels.tolist() == [IGNORE]


@pytest.mark.parametrize("num_boxes", [0, 3])
@pytest.mark.parametrize("low_quality", ["own_box", "that_box", "one_anchor", "none"])
def test_without_boxes_all_is_negative(num_boxes, low_quality):
    labels = np.full(num_boxes, -1, np.int32)
    gt_boxes = np.tile(ANCHORS[0], (num_boxes, 1))
    config = MatchingConfig(low_quality=low_quality)
    targets = _assign(ANCHORS, gt_boxes, labels, _no_crowd(labels), config=config)
    assert (targets.labels == NEGATIVE).all()
    assert targets.boxes.shape == (len(ANCHORS), 4) and not targets.boxes.any()


# Properties.


@st.composite
def images(draw):
    """Four boxes with corners on whole pixels, so that ties happen, with distinct labels."""
    number = st.integers(0, 80)
    low = np.array(draw(st.tuples(*[st.tuples(number, number)] * 4)), np.float32)
    side = np.array(draw(st.tuples(*[st.tuples(number, number)] * 4)), np.float32) + 1
    return np.concatenate([low, low + side], axis=1), np.arange(4, dtype=np.int32)


@pytest.mark.parametrize("least", [0.0, 0.25])
@pytest.mark.parametrize("low_quality", LOW_QUALITY)
def test_boxes_in_turn_match_as_all_pairs_do(low_quality, least):
    """200 images with overlaps in eighths, so that anchors and boxes tie often."""
    rng = np.random.default_rng(3)
    iou = np.float32(rng.integers(0, 6, (200, 12, 5)) / 8)
    valid = rng.random((200, 5)) < 0.7
    rules = MatchingConfig(low_quality=low_quality, low_quality_min_iou=least).iou_rules
    one_by_one = jax.jit(
        jax.vmap(lambda iou, valid: match_in_turn(lambda i: iou[:, i], valid, 12, rules))
    )
    at_once = jax.jit(jax.vmap(lambda iou, valid: match_pairs(iou, valid, rules)))
    np.testing.assert_array_equal(one_by_one(iou, valid), at_once(iou, valid))


@settings(deadline=None, max_examples=30)
@given(images(), st.sets(st.integers(0, 5), min_size=4, max_size=4))
def test_padding_changes_nothing(image, slots):
    gt_boxes, labels = image
    slots = sorted(slots)
    padded_boxes = np.tile(ANCHORS[5], (6, 1))
    padded_labels = np.full(6, -1, np.int32)
    padded_boxes[slots], padded_labels[slots] = gt_boxes, labels
    bare = _assign(ANCHORS, gt_boxes, labels, _no_crowd(labels), config=MatchingConfig())
    more = _assign(ANCHORS, padded_boxes, padded_labels, np.zeros(6, bool), config=MatchingConfig())
    np.testing.assert_array_equal(more.labels, bare.labels)
    np.testing.assert_array_equal(more.boxes, bare.boxes)


@settings(deadline=None, max_examples=30)
@given(images(), st.permutations(range(4)))
def test_the_order_of_boxes_decides_only_ties(image, order):
    gt_boxes, labels = image
    order = np.array(order)
    config = MatchingConfig()
    before = _assign(ANCHORS, gt_boxes, labels, _no_crowd(labels), config=config)
    after = _assign(ANCHORS, gt_boxes[order], labels[order], _no_crowd(labels), config=config)
    iou = np.sort(np.asarray(_match_boxes(ANCHORS, gt_boxes, config)[0]), axis=1)
    tied = iou[:, -1] == iou[:, -2]
    np.testing.assert_array_equal(before.labels[~tied], after.labels[~tied])
    np.testing.assert_array_equal(before.labels < 0, after.labels < 0)


def test_a_batch_equals_its_images():
    rng = np.random.default_rng(1)
    low = rng.integers(0, 60, (2, 5, 2))
    gt_boxes = np.concatenate([low, low + rng.integers(4, 60, (2, 5, 2))], -1).astype(np.float32)
    labels = rng.integers(-1, 4, (2, 5)).astype(np.int32)
    crowd = rng.random((2, 5)) < 0.2
    config = MatchingConfig()
    batched = jax.jit(partial(assign_batch, ANCHORS, config=config))(gt_boxes, labels, crowd)
    for i in range(2):
        eager = assign(ANCHORS, gt_boxes[i], labels[i], crowd[i], config)
        np.testing.assert_array_equal(batched.labels[i], eager.labels)
        np.testing.assert_array_equal(batched.boxes[i], eager.boxes)


@pytest.mark.parametrize("low_quality", LOW_QUALITY)
@pytest.mark.parametrize("crowds", ["some", "all"])
def test_platforms_agree(monkeypatch, low_quality, crowds):
    """The code of each platform, run on this one, on corners that float32 holds exactly."""
    rng = np.random.default_rng(2)
    anchors = np.round(ANCHORS)
    low = rng.integers(0, 60, (9, 2))
    gt_boxes = np.concatenate([low, low + rng.integers(8, 60, (9, 2))], -1).astype(np.float32)
    labels = np.array([4, 0, -1, 2, 2, 1, 3, -1, -1], np.int32)
    crowd = np.isin(np.arange(9), [3, 7]) if crowds == "some" else np.ones(9, bool)
    config = MatchingConfig(low_quality=low_quality)

    def of_platform(name):
        def choose(*arguments, default, **others):
            return others.get(name, default)(*arguments)

        monkeypatch.setattr(jax.lax, "platform_dependent", choose)
        return jax.tree.map(np.asarray, assign(anchors, gt_boxes, labels, crowd, config))

    cpu, cuda, tpu = map(of_platform, ("cpu", "cuda", "tpu"))
    assert (cpu.labels == IGNORE).any() and (cpu.labels >= 0).any() == (crowds == "some")
    for other in (cuda, tpu):
        np.testing.assert_array_equal(other.labels, cpu.labels)
        np.testing.assert_array_equal(other.boxes, cpu.boxes)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_overlaps_are_held_for_one_image_and_on_gpus_alone(platform):
    """Those of all pairs need 81 MB for an image of 800x1344."""
    shapes = [((3, 7, 4), np.float32), ((3, 7), np.int32), ((3, 7), bool)]
    function = jax.jit(partial(assign_batch, ANCHORS, config=MatchingConfig()))
    traced = function.trace(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    overlaps = f"stablehlo.divide .* tensor<{len(ANCHORS)}x7xf32>"
    assert bool(re.search(overlaps, program)) == (platform == "cuda")
    assert f"tensor<3x{len(ANCHORS)}x7xf32>" not in program


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"positive_iou": 0.0}, "positive_iou: 0.0"),
        ({"negative_iou": 0.6}, "negative_iou: 0.6"),
        ({"low_quality": "best"}, "'best' is not one of own_box, that_box, one_anchor, none"),
        ({"low_quality_min_iou": -0.1}, "low_quality_min_iou: -0.1"),
        ({"crowd_ioa": 0.0}, "write 'none' to drop crowds"),
    ],
)
def test_bad_fields_say_what_to_write(fields, says):
    with pytest.raises(ValueError, match=says):
        MatchingConfig(**fields)
