"""ATSS and task-aligned assignment against their papers' formulas in NumPy float64."""

import jax
import numpy as np
import pytest

from retinanet_jax.core import box_coder
from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image
from retinanet_jax.core.assignment import assign, assign_batch
from retinanet_jax.core.matching import ASSIGNERS, Assigner, MatchingConfig
from retinanet_jax.core.targets import IGNORE, NEGATIVE

ANCHORS = AnchorConfig(3, 6, scales=(1.0, 1.5), ratios=(1.0,), size=2.0, center=0.5)
LEVELS = anchors_for_image((96, 128), ANCHORS)  # 192, 48, 12 and 4 locations: fewer than k on P6
EVERY = np.concatenate(LEVELS)
OPTIONS = {"level_sizes": tuple(map(len, LEVELS)), "anchors_per_location": 2}
CLASSES = 3


def objects(seed, padding=2):
    """Boxes, labels and crowds of an image; the boxes of padding lie over others."""
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(-5, 90, (9, 2)), rng.uniform(6, 60, (9, 2))
    boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
    labels = rng.integers(0, CLASSES, 9).astype(np.int32)
    labels[len(labels) - padding :] = -1
    crowd = np.zeros(9, bool)
    crowd[3] = True
    return boxes, labels, crowd


def outputs(seed):
    """Logits and deltas of each level, as of a network that has learned something."""
    rng = np.random.default_rng(100 + seed)
    logits = tuple(rng.normal(-1, 1.5, (len(a), CLASSES)).astype(np.float32) for a in LEVELS)
    deltas = tuple(rng.normal(0, 0.3, (len(a), 4)).astype(np.float32) for a in LEVELS)
    return logits, deltas


def iou64(one, others):
    """IoU of a box with others."""
    one, others = np.float64(one), np.float64(others)
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    return common / ((one[2:] - one[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - common)


def centre64(boxes):
    return (np.float64(boxes)[:, :2] + np.float64(boxes)[:, 2:]) / 2


def inside64(points, box):
    return (np.minimum(points - box[:2], box[2:] - points) > 0.01).all(1)


def atss64(boxes, exists, k=9):
    """Algorithm 1 of arXiv 1912.02424: the box of each anchor, or -1."""
    best, match = np.full(len(EVERY), -1.0), np.full(len(EVERY), -1)
    for number in np.flatnonzero(exists):
        box, candidates, start = np.float64(boxes[number]), [], 0
        for level in LEVELS:
            distance = np.linalg.norm(centre64(level[::2]) - (box[:2] + box[2:]) / 2, axis=1)
            for location in np.argsort(distance, kind="stable")[:k]:
                candidates += [start + 2 * location, start + 2 * location + 1]
            start += len(level)
        iou = iou64(box, EVERY[candidates])
        threshold = iou.mean() + np.sqrt(np.square(iou - iou.mean()).sum() / (len(iou) - 1))
        for anchor, value, inside in zip(
            candidates, iou, inside64(centre64(EVERY[candidates]), box), strict=True
        ):
            if value >= threshold and inside and value > best[anchor]:
                best[anchor], match[anchor] = value, number
    return match


def aligned64(boxes, labels, exists, logits, deltas, m, alpha, beta):
    """Equation 2 of arXiv 2108.07755: the box of each anchor, or -1."""
    width_height = np.float64(EVERY[:, 2:] - EVERY[:, :2])
    delta = np.float64(np.concatenate(deltas))
    centre = centre64(EVERY) + delta[:, :2] * width_height
    half = np.exp(delta[:, 2:]) * width_height / 2
    predicted = np.concatenate([centre - half, centre + half], 1)
    scores = 1 / (1 + np.exp(-np.float64(np.concatenate(logits))))
    best, match = np.full(len(EVERY), -1.0), np.full(len(EVERY), -1)
    for number in np.flatnonzero(exists):
        iou = iou64(boxes[number], predicted)
        t = scores[:, labels[number]] ** alpha * iou**beta
        t[~inside64(centre64(EVERY), np.float64(boxes[number]))] = 0
        for anchor in np.argsort(-t, kind="stable")[:m]:
            if t[anchor] > 0 and iou[anchor] > best[anchor]:
                best[anchor], match[anchor] = iou[anchor], number
    return match


def expected(config, boxes, labels, crowd, logits, deltas):
    """Labels and boxes of all anchors."""
    exists = (labels >= 0) & ~crowd
    if config.assigner == "atss":
        match = atss64(boxes, exists)
    else:
        parameters = config.aligned_anchors, config.aligned_score_power, config.aligned_iou_power
        match = aligned64(boxes, labels, exists, logits, deltas, *parameters)
    found = np.where(match >= 0, labels[match], NEGATIVE)
    for region in boxes[crowd & (labels >= 0)]:
        low, high = np.maximum(region[:2], EVERY[:, :2]), np.minimum(region[2:], EVERY[:, 2:])
        share = np.clip(high - low, 0, None).prod(1) / (EVERY[:, 2:] - EVERY[:, :2]).prod(1)
        found[(share >= 0.5) & (found == NEGATIVE)] = IGNORE
    return found, np.where(match[:, None] >= 0, boxes[match], 0)


CONFIGS = {
    "atss": MatchingConfig("atss"),
    "task_aligned": MatchingConfig("task_aligned", aligned_anchors=5, aligned_score_power=0.5),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_targets_equal_the_formulas_of_the_paper(name):
    """Of a batch; the second image has other boxes, the last one has none."""
    images = [objects(0), objects(1, padding=0), objects(2, padding=9)]
    predictions = [outputs(seed) for seed in range(len(images))]
    stacked = jax.tree.map(lambda *x: np.stack(x), *images)
    targets = jax.jit(assign_batch, static_argnames=("config", *OPTIONS))(
        EVERY,
        *stacked,
        config=CONFIGS[name],
        predictions=jax.tree.map(lambda *x: np.stack(x), *predictions),
        **OPTIONS,
    )
    for image, outputs_, labels, boxes in zip(images, predictions, *targets, strict=True):
        wanted = expected(CONFIGS[name], *image, *outputs_)
        np.testing.assert_array_equal(labels, wanted[0])
        np.testing.assert_array_equal(boxes, wanted[1])
    positive = np.asarray(targets.labels) >= 0
    assert positive[0].sum() > 10 and (np.asarray(targets.labels[0]) == IGNORE).any()
    assert not positive[2].any()


@pytest.mark.parametrize("name", CONFIGS)
def test_one_image_at_a_time_as_on_accelerators(name):
    """`lax.map` over images, for which `assign_batch` compiles on GPUs and TPUs."""
    images = [(*objects(seed), outputs(seed)) for seed in range(2)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *images)

    def one(image):
        *objects_, predictions = image
        return assign(EVERY, *objects_, CONFIGS[name], predictions=predictions, **OPTIONS)

    mapped = jax.jit(lambda images: jax.lax.map(one, images))(stacked)
    for number, image in enumerate(images):
        wanted = expected(CONFIGS[name], *image[:3], *image[3])[0]
        np.testing.assert_array_equal(mapped.labels[number], wanted)


@pytest.mark.parametrize("name", CONFIGS)
def test_without_boxes_all_anchors_are_negative(name):
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    targets = assign(EVERY, *none, CONFIGS[name], predictions=outputs(0), **OPTIONS)
    assert (np.asarray(targets.labels) == NEGATIVE).all() and not np.asarray(targets.boxes).any()


def test_an_anchor_that_predicts_its_object_exactly_is_chosen():
    """The deltas of four anchors encode the box; all others predict their own anchor."""
    boxes, labels, crowd = np.float32([[20, 20, 70, 62]]), np.int32([1]), np.zeros(1, bool)
    config = MatchingConfig("task_aligned", aligned_anchors=4, aligned_iou_power=20.0)
    inside = inside64(centre64(EVERY), np.float64(boxes[0]))
    chosen = np.flatnonzero(inside)[[3, 30, 60, -1]]
    deltas = np.zeros((len(EVERY), 4), np.float32)
    deltas[chosen] = box_coder.encode(EVERY[chosen], np.repeat(boxes, 4, 0))
    ends = np.cumsum(OPTIONS["level_sizes"])[:-1]
    predictions = outputs(0)[0], tuple(np.split(deltas, ends))
    targets = assign(EVERY, boxes, labels, crowd, config, predictions=predictions, **OPTIONS)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(targets.labels) == 1), chosen)


def test_a_dynamic_assigner_needs_predictions():
    with pytest.raises(ValueError, match="'task_aligned' needs the network's predictions"):
        assign(EVERY, *objects(0), CONFIGS["task_aligned"])


def test_the_config_names_the_assigners(monkeypatch):
    with pytest.raises(ValueError, match=r"matching.assigner: 'sim' is not one of iou, atss, task"):
        MatchingConfig("sim")
    with pytest.raises(ValueError, match=r"matching.atss_locations: 0 must be at least 1"):
        MatchingConfig("atss", atss_locations=0)
    with pytest.raises(ValueError, match=r"matching.aligned_iou_power: -1 must be 0 or more"):
        MatchingConfig("task_aligned", aligned_iou_power=-1)
    everything = Assigner(lambda image, config: image.valid.argmax() + 0 * np.arange(len(EVERY)))
    monkeypatch.setitem(ASSIGNERS, "sim", everything)
    boxes, labels, _ = objects(0)
    targets = assign(EVERY, boxes, labels, np.zeros(9, bool), MatchingConfig("sim"))
    assert (np.asarray(targets.labels) == labels[0]).all()


def test_memory_at_full_size():
    """The plan of the CPU's compiler, at most 1.5 times that of matching by IoU."""
    anchors = AnchorConfig()
    levels = anchors_for_image((800, 1344), anchors)
    sizes = tuple(map(len, levels))
    image = (
        np.zeros((100, 4), np.float32),
        np.zeros(100, np.int32),
        np.zeros(100, bool),
    )
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), image)
    predictions = tuple(
        tuple(jax.ShapeDtypeStruct((size, values), np.float32) for size in sizes)
        for values in (80, 4)
    )

    def temporary(config):
        def of_image(*arguments):
            *objects_, outputs_ = arguments
            options = {"level_sizes": sizes, "anchors_per_location": 9, "predictions": outputs_}
            return assign(np.concatenate(levels), *objects_, config, **options)

        needed = predictions if ASSIGNERS[config.assigner].needs_predictions else None
        plan = jax.jit(of_image).lower(*shapes, needed).compile().memory_analysis()
        return plan.temp_size_in_bytes

    limit = 1.5 * temporary(MatchingConfig())
    assert max(temporary(MatchingConfig(name)) for name in ("atss", "task_aligned")) <= limit
