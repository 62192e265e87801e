"""Soft-NMS against figure 2 of its paper in NumPy float64; the kinds of NMS in `detect`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retinanet_jax.core.postprocess import Detections, PostprocessConfig, detect, suppress
from retinanet_jax.core.soft_nms import soft_nms
from retinanet_jax.inference.test_time_augmentation import merge


def objects(seed, count=60, classes=3):
    """Clusters of boxes, among them exact copies, as Detections in no order."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-30, 60, (count // 3, 2)).repeat(3, 0)
    corner = corner + rng.uniform(0, 12, corner.shape) * (np.arange(count) % 3 > 0)[:, None]
    boxes = np.concatenate([corner, corner + rng.uniform(15, 40, (count, 2))], 1)
    boxes[5] = boxes[3]
    scores = rng.uniform(0.01, 1, count).astype(np.float32)
    labels = rng.integers(0, classes, count).astype(np.int32)
    return Detections(boxes.astype(np.float32), scores, labels, rng.uniform(size=count) > 0.1)


def iou64(box, others):
    box, others = np.float64(box), np.float64(others)
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    return common / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - common)


def reference(found, decay, threshold, count):
    """Each class by itself as in figure 2; then the best of all classes: (index, score)."""
    kept = []
    for label in np.unique(found.labels):
        left = list(np.flatnonzero(found.valid & (found.labels == label)))
        scores = np.float64(found.scores)
        while left:
            best = max(left, key=lambda i: scores[i])
            kept.append((best, scores[best]))
            left.remove(best)
            if left:
                scores[left] *= decay(iou64(found.boxes[best], found.boxes[left]))
    kept = sorted((pair for pair in kept if pair[1] > threshold), key=lambda pair: -pair[1])
    return kept[:count]


DECAYS = {
    "linear": lambda iou: np.where(iou >= 0.3, 1 - iou, 1),
    "gaussian": lambda iou: np.exp(-(iou**2) / 0.5),
}


@pytest.mark.parametrize("method", DECAYS)
@pytest.mark.parametrize("count", [8, 100])
def test_the_scores_are_those_of_the_paper(method, count):
    for seed in range(4):
        found = objects(seed)
        wanted = reference(found, DECAYS[method], 0.05, count)
        indices, scores, kept = map(
            np.asarray,
            soft_nms(
                found.boxes,
                found.scores,
                found.valid,
                found.labels,
                method=method,
                max_outputs=count,
                score_threshold=0.05,
            ),
        )
        assert kept.sum() == len(wanted) and kept[: len(wanted)].all()
        assert indices[kept].tolist() == [index for index, _ in wanted]
        np.testing.assert_allclose(scores[kept], [score for _, score in wanted], rtol=1e-5)
        assert not indices[~kept].any() and not scores[~kept].any()


def test_gaussian_of_two_boxes_by_hand():
    """IoU 1/3: the second score becomes .8 exp(-(1/9) / .25) = .8 x .6412; a third class stays."""
    boxes = np.float32([[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10]])
    found = Detections(boxes, np.float32([0.9, 0.8, 0.5]), np.int32([1, 1, 0]), np.ones(3, bool))
    config = PostprocessConfig(nms="soft_gaussian", soft_sigma=0.25, max_detections=4)
    kept = suppress(Detections(*map(jnp.asarray, found)), config)
    np.testing.assert_allclose(kept.scores, [0.9, 0.8 * np.exp(-4 / 9), 0.5, 0], rtol=1e-6)
    assert kept.valid.tolist() == [True, True, True, False]


def test_a_batch_of_images_and_no_boxes():
    images = [objects(seed) for seed in range(3)]
    config = PostprocessConfig(nms="soft_linear", nms_iou=0.3, max_detections=20)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *images)
    together = jax.vmap(lambda found: suppress(found, config))(stacked)
    for number, image in enumerate(images):
        wanted = reference(image, DECAYS["linear"], 0.05, 20)
        np.testing.assert_allclose(
            together.scores[number][: len(wanted)], [score for _, score in wanted], rtol=1e-5
        )
    none = (part[:0] for part in images[0])
    boxes, scores, labels, valid = none
    options = {"method": "linear", "max_outputs": 4, "score_threshold": 0.05}
    indices, scores, kept = soft_nms(boxes, scores, valid, labels, **options)
    assert not kept.any() and not scores.any() and not indices.any()


def test_class_agnostic_keeps_one_of_two_classes_at_one_place():
    """Two classes at each anchor; deltas are 0, so that both boxes are the anchor."""
    logits = (np.float32([[2.0, 1.0], [0.5, 3.0]]),)
    anchors = (np.float32([[0, 0, 20, 20], [40, 0, 60, 20]]),)
    deltas = (np.zeros((2, 4), np.float32),)

    def found(kind):
        config = PostprocessConfig(nms=kind, max_detections=5)
        return detect(logits, deltas, anchors, np.float32([64, 64]), config)

    assert found("class_wise").valid.sum() == 4
    kept = found("class_agnostic")
    assert kept.labels.tolist() == [1, 0, -1, -1, -1]
    np.testing.assert_array_equal(kept.boxes[:2], anchors[0][::-1])


def test_views_of_an_image_are_merged_by_the_same_kind():
    """Test-time augmentation: the same box in two views, one of them of another class."""
    box, scores = np.float32([[0, 0, 20, 20]]), (0.9, 0.6)
    views = [
        Detections(box, np.float32([score]), np.int32([label]), np.ones(1, bool))
        for label, score in enumerate(scores)
    ]
    merged = merge(views, PostprocessConfig(nms="class_agnostic", max_detections=2))
    assert merged.labels[:1].tolist() == [0] and merged.valid.tolist() == [True, False]
    views[1] = views[1]._replace(labels=np.int32([0]))
    merged = merge(views, PostprocessConfig(nms="soft_gaussian", max_detections=2))
    np.testing.assert_allclose(merged.scores, [0.9, 0.6 * np.exp(-2)], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nms": "soft"}, "postprocess.nms: 'soft' is not one of class_wise, class_agnostic, soft"),
        ({"soft_sigma": 0}, "postprocess.soft_sigma: 0 must be above 0"),
    ],
)
def test_invalid_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        PostprocessConfig(**fields)


def test_invalid_arguments():
    found = objects(0)
    arguments = found.boxes, found.scores, found.valid, found.labels
    with pytest.raises(ValueError, match="'hard' is not one of linear, gaussian"):
        soft_nms(*arguments, method="hard", max_outputs=3, score_threshold=0.0)
    with pytest.raises(ValueError, match="max_outputs: 0 must be at least 1"):
        soft_nms(*arguments, method="linear", max_outputs=0, score_threshold=0.0)
