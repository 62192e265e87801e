"""ATSS and task-aligned assignment against their papers' formulas in NumPy float64."""

import jax
import numpy as np
import pytest

from retinanet_jax.core import box_coder
from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image
from retinanet_jax.core.assignment import assign, assign_batch
from retinanet_jax.core.atss import match_atss
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import ASSIGNERS, Assigner, MatchingConfig
from retinanet_jax.core.targets import IGNORE, NEGATIVE
from retinanet_jax.core.task_aligned import normalized_alignment

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
    predicted, scores = predicted64(deltas), sigmoid64(logits)
    best, match = np.full(len(EVERY), -1.0), np.full(len(EVERY), -1)
    for number in np.flatnonzero(exists):
        iou = iou64(boxes[number], predicted)
        t = scores[:, labels[number]] ** alpha * iou**beta
        t[~inside64(centre64(EVERY), np.float64(boxes[number]))] = 0
        for anchor in np.argsort(-t, kind="stable")[:m]:
            if t[anchor] > 0 and iou[anchor] > best[anchor]:
                best[anchor], match[anchor] = iou[anchor], number
    return match


def alignment64(match, boxes, labels, logits, deltas, alpha, beta):
    """Section 3.2 of arXiv 2108.07755: t of the positives, scaled to the highest IoU of a box."""
    predicted, scores = predicted64(deltas), sigmoid64(logits)
    wanted = np.zeros(len(EVERY))
    for number in set(match[match >= 0]):
        own = match == number
        iou = iou64(boxes[number], predicted[own])
        t = scores[own, labels[number]] ** alpha * iou**beta
        wanted[own] = t / t.max() * iou.max()
    return wanted


def sigmoid64(logits):
    return 1 / (1 + np.exp(-np.float64(np.concatenate(logits))))


def predicted64(deltas):
    width_height = np.float64(EVERY[:, 2:] - EVERY[:, :2])
    delta = np.float64(np.concatenate(deltas))
    centre = centre64(EVERY) + delta[:, :2] * width_height
    half = np.exp(delta[:, 2:]) * width_height / 2
    return np.concatenate([centre - half, centre + half], 1)


def expected(config, boxes, labels, crowd, logits, deltas):
    """Labels, boxes and, of task_aligned, the alignment of all anchors."""
    exists = (labels >= 0) & ~crowd
    alignment = None
    if config.assigner == "atss":
        match = atss64(boxes, exists)
    else:
        powers = config.aligned_score_power, config.aligned_iou_power
        count = config.aligned_anchors
        match = aligned64(boxes, labels, exists, logits, deltas, count, *powers)
        alignment = alignment64(match, boxes, labels, logits, deltas, *powers)
    found = np.where(match >= 0, labels[match], NEGATIVE)
    for region in boxes[crowd & (labels >= 0)]:
        low, high = np.maximum(region[:2], EVERY[:, :2]), np.minimum(region[2:], EVERY[:, 2:])
        share = np.clip(high - low, 0, None).prod(1) / (EVERY[:, 2:] - EVERY[:, :2]).prod(1)
        found[(share >= 0.5) & (found == NEGATIVE)] = IGNORE
    return found, np.where(match[:, None] >= 0, boxes[match], 0), alignment


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
    assert (targets.alignment is None) == (name == "atss")
    for number, (image, outputs_) in enumerate(zip(images, predictions, strict=True)):
        wanted = expected(CONFIGS[name], *image, *outputs_)
        np.testing.assert_array_equal(targets.labels[number], wanted[0])
        np.testing.assert_array_equal(targets.boxes[number], wanted[1])
        if targets.alignment is not None:
            np.testing.assert_allclose(targets.alignment[number], wanted[2], rtol=1e-4, atol=1e-6)
    positive = np.asarray(targets.labels) >= 0
    assert positive[0].sum() > 10 and (np.asarray(targets.labels[0]) == IGNORE).any()
    assert not positive[2].any()


@pytest.mark.parametrize("highest", [3, 4, 5, 6])
def test_large_objects_have_atss_anchors_on_any_number_of_levels(highest):
    """With one anchor a location; by algorithm 1 alone, some of them are above all candidates."""
    config = AnchorConfig(3, highest, scales=(1.0,), ratios=(1.0,), size=4.0, center=0.5)
    levels = anchors_for_image((256, 256), config)
    rng = np.random.default_rng(0)
    size = rng.uniform(100, 230, (100, 2))
    corner = rng.uniform(0, 256 - size)
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    match = jax.jit(jax.vmap(lambda box: match_atss(levels, box[None], np.array([True]))))
    assert (match(boxes) == 0).any(axis=1).all()


@pytest.mark.parametrize("classification", ["quality_focal", "varifocal", "focal"])
def test_the_alignment_is_target_and_weight_of_quality_losses(classification):
    """The task-aligned loss of TOOD in float64; a focal loss has the target 1 and no weights."""
    config = LossConfig(classification, gamma=2.0, alpha=0.75, box="l1")
    (boxes, labels, crowd), predictions = objects(0), outputs(0)

    @jax.jit
    def loss(predictions):
        objects_ = boxes, labels, crowd
        targets = assign(EVERY, *objects_, CONFIGS["task_aligned"], predictions=predictions)
        batch = jax.tree.map(lambda x: x[None], (predictions, targets))
        found = retinanet_loss(*batch[0], LEVELS, batch[1], np.ones(1, bool), config)
        return batch[1], found

    targets, found = loss(predictions)

    state = np.asarray(targets.labels[0])
    t = alignment64(
        aligned64(boxes, labels, (labels >= 0) & ~crowd, *predictions, 5, 0.5, 6.0),
        *(boxes, labels, *predictions, 0.5, 6.0),
    )
    p, y = sigmoid64(predictions[0]), np.zeros((len(EVERY), CLASSES))
    positive = state >= 0
    y[positive, state[positive]] = t[positive] if classification != "focal" else 1
    weight = np.where(positive, t, 0) if classification != "focal" else positive
    entropy = -y * np.log(p) - (1 - y) * np.log1p(-p)
    losses = {
        "quality_focal": np.abs(y - p) ** 2 * entropy,
        "varifocal": np.where(y > 0, y * entropy, -0.75 * p**2 * np.log1p(-p)),
        "focal": np.where(y > 0, 0.75 * (1 - p) ** 2, 0.25 * p**2) * entropy,
    }[classification]
    wanted = losses[state != IGNORE].sum() / positive.sum()
    np.testing.assert_allclose(found.class_loss, wanted, rtol=1e-4)
    encoded = np.float64(box_coder.encode(EVERY, targets.boxes[0]))
    distance = np.abs(np.concatenate(predictions[1]) - encoded).sum(1)
    wanted = (weight * distance)[positive].sum() / positive.sum()
    np.testing.assert_allclose(found.box_loss, wanted, rtol=1e-4)
    assert 0.02 < np.mean(t[positive]) < 0.9


def test_the_best_aligned_anchor_has_the_highest_iou_of_its_object():
    """Two anchors, s = .2 and .8, u = 1/2 and 1/4: with alpha 1 and beta 1, t = .1 and .2."""
    boxes, labels = np.float32([[0, 0, 8, 8]]), np.int32([0])
    predicted = np.float32([[0, 0, 8, 4], [0, 0, 4, 4], [50, 50, 60, 60]])
    logits = np.log(np.float32([[0.2], [0.8], [0.9]]) / np.float32([[0.8], [0.2], [0.1]]))
    found = normalized_alignment(
        (logits,),
        predicted,
        *(np.int32([0, 0, NEGATIVE]), np.repeat(labels, 3), np.repeat(boxes, 3, 0), 1),
        iou_power=1.0,
    )
    np.testing.assert_allclose(found, [0.25, 0.5, 0], rtol=1e-6)


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
    """The plan of the CPU's compiler: by IoU without overlaps of all pairs."""
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

    pairs = sum(sizes) * 100 * 4
    assert temporary(MatchingConfig()) < 0.1 * pairs
    assert temporary(MatchingConfig("atss")) < 0.2 * pairs
    assert temporary(MatchingConfig("task_aligned")) < 3 * pairs
