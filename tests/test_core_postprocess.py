"""Post-processing against torchvision's results and against the full flattened top-k."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image
from retinanet_jax.core.postprocess import (
    Detections,
    PostprocessConfig,
    candidates,
    detect,
    to_original,
    top_pairs,
)

TORCHVISION_ANCHORS = AnchorConfig(order="ratio_major", rounding="torchvision", strides="grid")
# The settings under which the golden results were made.
GOLDEN_SETTINGS = {
    "default": PostprocessConfig(max_detections=300),
    "small": PostprocessConfig(0.3, pre_nms_top_k=50, nms_iou=0.6, max_detections=20),
    "none": PostprocessConfig(0.999999, max_detections=300),
}


jitted_detect = jax.jit(detect, static_argnames="config")


def flattened_top_k(class_logits, count):
    """All pairs sorted by falling logit, the lower flat index first: what two stages must equal."""
    flat = class_logits.reshape(-1)
    order = np.argsort(-flat, kind="stable")[:count]
    return flat[order], order // class_logits.shape[1], order % class_logits.shape[1]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1), (3, 2), (40, 7), (200, 5)]),
    count=st.sampled_from([1, 5, 37, 5000]),
    levels=st.sampled_from([1, 3, 20, 10**6]),
)
def test_two_stages_equal_the_flattened_top_k(seed, shape, count, levels):
    """Few distinct values make many ties, also across the cut."""
    logits = np.random.default_rng(seed).integers(0, levels, shape).astype(np.float32)
    got = jax.jit(top_pairs, static_argnames="count")(logits, count=count)
    for mine, want in zip(got, flattened_top_k(logits, count), strict=True):
        np.testing.assert_array_equal(mine, want)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_top_pairs_of_a_full_image(dtype):
    """151,200 anchors, the P3 of 800 x 1344, with every class of an anchor high or none."""
    key = jax.random.key(0)
    logits = jax.random.normal(key, (151200, 80)) * jnp.linspace(0.1, 3, 151200)[:, None]
    logits = logits.astype(dtype)
    got = jax.jit(top_pairs, static_argnames="count")(logits, count=1000)
    assert got[0].dtype == jnp.float32
    flat = np.asarray(logits.astype(jnp.float32)).reshape(-1)
    best = np.sort(np.partition(flat, len(flat) - 1000)[-1000:])[::-1]
    np.testing.assert_array_equal(got[0], best)
    np.testing.assert_array_equal(flat[np.asarray(got[1]) * 80 + np.asarray(got[2])], best)


@pytest.fixture(scope="module")
def golden_post(golden_dir):
    with np.load(golden_dir / "units.npz") as units:
        return {key[len("post/") :]: units[key] for key in units if key.startswith("post/")}


def golden_detect(golden, image, config):
    """Our detections from the stored head outputs of one image; sizes come from the file."""
    anchors = anchors_for_image(tuple(golden["padded_size"].tolist()), TORCHVISION_ANCHORS)
    assert [len(a) for a in anchors] == golden["num_anchors_per_level"].tolist()
    cuts = np.cumsum(golden["num_anchors_per_level"])[:-1]
    split = [
        tuple(np.split(golden[name][image].astype(np.float32), cuts))
        for name in ("logits", "regression")
    ]
    return jitted_detect(
        *split, anchors, golden["image_sizes"][image].astype(np.float32), config=config
    )


@pytest.mark.parametrize("setting", GOLDEN_SETTINGS)
def test_torchvision_postprocessing(golden_post, setting):
    """Equal up to ties: the stored logits have float16 values, so that hundreds are equal."""
    for image in range(len(golden_post["logits"])):
        want = {n: golden_post[f"{setting}/{image}/{n}"] for n in ("boxes", "scores", "labels")}
        got = golden_detect(golden_post, image, GOLDEN_SETTINGS[setting])
        count = len(want["scores"])
        assert int(got.valid.sum()) == count
        np.testing.assert_allclose(got.scores[:count], want["scores"], atol=1e-6)
        found = same_rows(got, want).any(axis=1)
        assert found.sum() >= 0.97 * count, f"{found.sum()} of {count} rows are torchvision's"


def same_rows(got, want):
    """Bool [golden rows, our rows]: same label, score and box."""
    boxes, scores, labels, valid = map(np.asarray, got)
    near = np.abs(want["boxes"][:, None] - boxes).max(-1) < 1e-2
    near &= np.abs(want["scores"][:, None] - scores) < 1e-6
    return near & (want["labels"][:, None] == labels) & valid


def one_level(logits, anchors=None, image_size=(100, 100), **settings):
    """`candidates` of plain anchors without deltas."""
    logits = np.array(logits, np.float32)
    if anchors is None:
        corner = np.arange(len(logits), dtype=np.float32)[:, None] * 20
        anchors = np.concatenate([corner, corner * 0, corner + 10, corner * 0 + 10], 1)
    anchors = np.asarray(anchors, np.float32)
    size = np.array(image_size, np.float32)
    config = PostprocessConfig(**settings)
    return candidates(logits, np.zeros_like(anchors), anchors, size, config), anchors


def test_candidates_by_hand():
    """Two classes of anchor 1 come before the best class of anchor 0; the rest is under 0.05."""
    got, anchors = one_level([[0.0, -9.0], [2.0, 1.0], [-9.0, -9.0]], pre_nms_top_k=4)
    np.testing.assert_array_equal(got.labels, [0, 1, 0, -1])
    np.testing.assert_array_equal(got.valid, [True, True, True, False])
    np.testing.assert_allclose(got.scores, [0.880797, 0.731059, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(got.boxes, [*anchors[[1, 1, 0]], [0, 0, 0, 0]])


def test_threshold_is_strict():
    """sigmoid(0) is exactly 0.5."""
    assert not one_level([[0.0]], score_threshold=0.5)[0].valid.any()
    assert one_level([[1e-6]], score_threshold=0.5)[0].valid.all()


def test_boxes_are_clipped_to_the_image():
    got, _ = one_level([[3.0]], anchors=[[-5, -5, 300, 300]], image_size=(40, 60))
    np.testing.assert_array_equal(got.boxes, [[0, 0, 60, 40]])


def test_decoded_sides_are_bounded():
    anchors, size = np.array([[50, 50, 51, 51]], np.float32), np.array([1000, 1000], np.float32)
    deltas = np.array([[0, 0, 50, 50]], np.float32)
    got = candidates(np.ones((1, 1), np.float32), deltas, anchors, size, PostprocessConfig())
    np.testing.assert_allclose(got.boxes, 50.5 + 31.25 * np.array([[-1, -1, 1, 1]]), atol=1e-3)


def test_shrinking_is_bounded_where_the_recipe_says():
    """MMDetection: sides of at least 16 / 1000 of the anchor's."""
    anchors, size = np.array([[0, 0, 1000, 1000]], np.float32), np.array([2000, 2000], np.float32)
    deltas = np.array([[0, 0, -50, -50]], np.float32)
    for clamp, half in ((False, 0), (True, 8)):
        config = PostprocessConfig(clamp_both_sides=clamp)
        got = candidates(np.ones((1, 1), np.float32), deltas, anchors, size, config)
        wanted = 500 + half * np.array([[-1, -1, 1, 1]])
        np.testing.assert_allclose(got.boxes, wanted, atol=1e-3)


# In an image of 100 x 100: two boxes of which clipping leaves the same part, and one outside.
CLIPPED = np.array([[-60, 0, 20, 20], [0, 0, 20, 20], [-50, 50, -10, 90]], np.float32)


@pytest.mark.parametrize(
    ("before", "drop", "boxes"),
    [
        # torchvision: the second is the first once it is clipped; the third is flat, and stays.
        (True, False, [[0, 0, 20, 20], [0, 50, 0, 90]]),
        # MMDetection.
        (True, True, [[0, 0, 20, 20]]),
        # Detectron2: unclipped the first two have an IoU of 1/4.
        (False, True, [[0, 0, 20, 20], [0, 0, 20, 20]]),
        (False, False, [[0, 0, 20, 20], [0, 50, 0, 90], [0, 0, 20, 20]]),
    ],
)
def test_clipping_before_or_after_nms(before, drop, boxes):
    config = PostprocessConfig(clip_before_nms=before, drop_empty=drop, max_detections=4)
    logits, size = np.array([[3], [1], [2]], np.float32), np.array([100, 100], np.float32)
    got = jitted_detect((logits,), (np.zeros((3, 4), np.float32),), (CLIPPED,), size, config=config)
    count = len(boxes)
    np.testing.assert_array_equal(got.valid, np.arange(len(got.valid)) < count)
    np.testing.assert_allclose(got.boxes[:count], boxes)
    assert np.all(np.diff(got.scores[:count]) < 0) and not got.scores[count:].any()


@pytest.mark.parametrize("outside", [[50, -50, 90, -10], [50, 110, 90, 150], [110, 50, 150, 90]])
def test_boxes_outside_in_either_direction_are_dropped(outside):
    """Above, below and right of an image of 100 x 100."""
    config = PostprocessConfig(drop_empty=True, max_detections=4)
    anchors = np.array([outside, [0, 0, 20, 20]], np.float32)
    logits, size = np.array([[3], [1]], np.float32), np.array([100, 100], np.float32)
    got = jitted_detect((logits,), (np.zeros((2, 4), np.float32),), (anchors,), size, config=config)
    np.testing.assert_array_equal(got.boxes[got.valid], [[0, 0, 20, 20]])


def random_heads(seed, num_classes=3, dtype=np.float32):
    rng = np.random.default_rng(seed)
    anchors = anchors_for_image((64, 96), AnchorConfig(min_level=6))
    logits = tuple(rng.normal(-2, 2, (len(a), num_classes)).astype(dtype) for a in anchors)
    deltas = tuple(rng.normal(0, 0.5, (len(a), 4)).astype(dtype) for a in anchors)
    return logits, deltas, anchors


def test_detections_merge_levels_and_classes():
    """The same box from two levels and classes: once per class, the higher score."""
    box = np.array([[10, 10, 30, 30]], np.float32)
    logits = (np.array([[1.0, 2.0]], np.float32), np.array([[3.0, -9.0]], np.float32))
    zeros = (np.zeros((1, 4), np.float32),) * 2
    size = np.array([50, 50], np.float32)
    config = PostprocessConfig(max_detections=4)
    got = jitted_detect(logits, zeros, (box, box), size, config=config)
    np.testing.assert_array_equal(got.labels, [0, 1, -1, -1])
    np.testing.assert_allclose(got.scores, [0.952574, 0.880797, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(got.valid, [True, True, False, False])
    np.testing.assert_allclose(got.boxes, [[10, 10, 30, 30]] * 2 + [[0] * 4] * 2, atol=1e-5)


def test_jit_and_vmap_equal_eager():
    config = PostprocessConfig(pre_nms_top_k=60, max_detections=20)
    heads = [random_heads(seed) for seed in range(2)]
    sizes = np.array([[64, 96], [50, 40]], np.float32)
    logits, deltas = (
        tuple(np.stack(level) for level in zip(*(h[i] for h in heads), strict=True))
        for i in range(2)
    )
    function = functools.partial(detect, anchors=heads[0][2], config=config)
    batched = jax.jit(jax.vmap(lambda c, d, s: function(c, d, image_size=s)))(logits, deltas, sizes)
    for i, (one_logits, one_deltas, _) in enumerate(heads):
        call = function if i == 0 else jax.jit(function)
        single = call(one_logits, one_deltas, image_size=sizes[i])
        for name in Detections._fields:
            np.testing.assert_allclose(
                getattr(batched, name)[i], getattr(single, name), atol=1e-4, err_msg=name
            )
        assert single.valid.any() and np.all(np.diff(single.scores) <= 0)


def test_nothing_above_the_threshold():
    logits, deltas, anchors = random_heads(0)
    size = np.array([64, 96], np.float32)
    config = PostprocessConfig(score_threshold=1.0)
    got = jitted_detect(logits, deltas, anchors, size, config=config)
    assert not got.valid.any() and not got.boxes.any() and np.all(got.labels == -1)


def test_bfloat16_heads_give_float32_detections():
    logits, deltas, anchors = random_heads(1)
    logits, deltas = (tuple(jnp.asarray(x, jnp.bfloat16) for x in xs) for xs in (logits, deltas))
    size = np.array([64, 96], np.float32)
    config = PostprocessConfig(max_detections=10)
    got = jitted_detect(logits, deltas, anchors, size, config=config)
    assert got.boxes.dtype == got.scores.dtype == jnp.float32 and got.labels.dtype == jnp.int32
    assert np.isfinite(got.boxes).all()


def test_levels_must_agree():
    logits, deltas, anchors = random_heads(0)
    with pytest.raises(ValueError, match="argument"):
        detect(logits[:-1], deltas, anchors, np.array([64, 96], np.float32), PostprocessConfig())


def test_back_to_the_original_image():
    """An image of 200 x 600 (height, width) shown to the network as 100 x 200."""
    boxes = np.array([[20, 10, 100, 50]], np.float32)
    given_ = Detections(boxes, np.ones(1, np.float32), np.zeros(1, np.int32), np.ones(1, bool))
    got = to_original(given_, np.array([100, 200]), np.array([200, 600]))
    np.testing.assert_allclose(got.boxes, [[60, 20, 300, 100]])
    np.testing.assert_array_equal(got.scores, given_.scores)


@pytest.mark.parametrize(
    ("field", "value"),
    [("score_threshold", 1.5), ("nms_iou", -0.1), ("pre_nms_top_k", 0), ("max_detections", 0)],
)
def test_config_names_the_bad_field(field, value):
    with pytest.raises(ValueError, match=rf"postprocess\.{field}: {value}"):
        PostprocessConfig(**{field: value})
