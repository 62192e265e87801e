"""VOC's AP against cases by hand and a detection-by-detection implementation of the kit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet_jax.metrics.voc import VocDetections, VocObjects, voc_average_precision


def objects(*rows):
    """Rows of x1, y1, x2, y2, label, difficult."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return VocObjects(table[:, :4], table[:, 4].astype(np.int32), table[:, 5] > 0)


def detections(*rows):
    """Rows of x1, y1, x2, y2, label, score."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return VocDetections(table[:, :4], table[:, 5], table[:, 4].astype(np.int32))


BOX = (10, 10, 50, 50)
FAR = (200, 200, 250, 250)


def loop_over_detections(ground_truth, found, label, iou, margin):
    """Both APs of one class, one detection at a time, as in VOCevaldet.m."""
    rows = [
        (float(score), image, box)
        for image, entry in enumerate(found)
        for box, score, which in zip(*entry, strict=True)
        if which == label
    ]
    taken, right = set(), []
    for _, image, box in sorted(rows, key=lambda row: -row[0]):
        best, which = -1.0, None
        for index, other in enumerate(ground_truth[image].boxes):
            if ground_truth[image].labels[index] != label:
                continue
            width = min(box[2], other[2]) - max(box[0], other[0]) + margin
            height = min(box[3], other[3]) - max(box[1], other[1]) + margin
            if width <= 0 or height <= 0:
                continue
            sizes = [(b[2] - b[0] + margin) * (b[3] - b[1] + margin) for b in (box, other)]
            overlap = float(width * height / (sum(sizes) - width * height))
            if overlap > best:
                best, which = overlap, index
        if best < iou:
            right.append(0)
        elif not ground_truth[image].difficult[which]:
            right.append(int((image, which) not in taken))
            taken.add((image, which))
    total = sum(int(((g.labels == label) & ~g.difficult).sum()) for g in ground_truth)
    if total == 0:
        return np.nan, np.nan
    recall = [0.0, *(np.cumsum(right) / total)]
    precision = [0.0, *(np.cumsum(right) / np.arange(1, len(right) + 1))]
    eleven = [
        max((p for r, p in zip(recall, precision, strict=True) if r >= t / 10), default=0)
        for t in range(11)
    ]
    area = sum((recall[i] - recall[i - 1]) * max(precision[i:]) for i in range(1, len(recall)))
    return np.mean(eleven), area


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_images=st.sampled_from([1, 2, 7]),
    score_levels=st.sampled_from([3, 10**6]),
    iou=st.sampled_from([0.3, 0.5, 0.75]),
    inclusive=st.booleans(),
)
def test_ap_equals_a_loop_over_detections(seed, num_images, score_levels, iou, inclusive):
    rng = np.random.default_rng(seed)

    def boxes(count):
        # Integers on a coarse grid give overlaps of exactly 1/2, and equal overlaps.
        corner = rng.integers(0, 5, (count, 2)) * 8
        side = rng.integers(1, 5, (count, 2)) * 8 - int(inclusive)
        return np.concatenate([corner, corner + side], 1).astype(np.float64)

    truth, found = [], []
    for _ in range(num_images):
        m, d = rng.integers(0, 6), rng.integers(0, 20)
        truth.append(VocObjects(boxes(m), rng.integers(0, 2, m), rng.uniform(size=m) < 0.2))
        scores = rng.integers(0, score_levels, d) / score_levels
        found.append(VocDetections(boxes(d), scores, rng.integers(0, 2, d)))
    got = voc_average_precision(truth, found, 2, iou, inclusive_corners=inclusive)
    for label in range(2):
        eleven, area = loop_over_detections(truth, found, label, iou, float(inclusive))
        np.testing.assert_allclose(got["per_class_11point"][str(label)], eleven, atol=1e-12)
        np.testing.assert_allclose(got["per_class_allpoint"][str(label)], area, atol=1e-12)


def test_by_hand():
    """Class "a": 4 objects; by falling score correct, wrong, correct: recalls 1/4, 1/4, 2/4.

    11 points: precision 1 at recalls 0, .1, .2; 2/3 at .3, .4, .5; 0 above: (3 + 2) / 11.
    All points: 1/4 * 1 + 1/4 * 2/3 = 5/12.
    Class "b" is detected exactly. The mean is over both classes.
    """
    truth = [
        objects((*BOX, 0, 0), (100, 100, 150, 150, 0, 0)),
        objects((*BOX, 0, 0), (100, 100, 150, 150, 0, 0), (300, 10, 350, 60, 1, 0)),
    ]
    found = [
        detections((*BOX, 0, 0.9), (*FAR, 0, 0.8)),
        detections((*BOX, 0, 0.7), (300, 10, 350, 60, 1, 0.2)),
    ]
    got = voc_average_precision(truth, found, 2, names=("a", "b"))
    assert got["per_class_11point"] == pytest.approx({"a": 5 / 11, "b": 1.0})
    assert got["per_class_allpoint"] == pytest.approx({"a": 5 / 12, "b": 1.0})
    assert got["AP_11point"] == pytest.approx((5 / 11 + 1) / 2)
    assert got["AP_allpoint"] == pytest.approx((5 / 12 + 1) / 2)


def test_duplicates_are_wrong():
    """Correct, wrong (a duplicate), correct: 1/2 * 1 + 1/2 * 2/3."""
    truth = [objects((*BOX, 0, 0), (*FAR, 0, 0))]
    found = [detections((*BOX, 0, 0.9), (*BOX, 0, 0.8), (*FAR, 0, 0.7))]
    assert voc_average_precision(truth, found, 1)["AP_allpoint"] == pytest.approx(5 / 6)


def test_difficult_objects_are_ignored():
    """Neither detections of a difficult object nor a missed one change the AP."""
    truth = [objects((*FAR, 0, 1), (*BOX, 0, 0))]
    found = [detections((*FAR, 0, 0.9), (*FAR, 0, 0.8), (*BOX, 0, 0.7))]
    assert voc_average_precision(truth, found, 1)["AP_allpoint"] == 1.0
    assert voc_average_precision(truth, [detections((*BOX, 0, 0.7))], 1)["AP_allpoint"] == 1.0
    plain = [VocObjects(truth[0].boxes, truth[0].labels)]
    assert voc_average_precision(plain, [detections((*BOX, 0, 0.7))], 1)["AP_allpoint"] == 0.5


def test_corners_are_inclusive_by_default():
    """Pixels 0..9 and 0..4: 10 and 5 columns, IoU 1/2 exactly; as coordinates 4/9."""
    truth = [objects((0, 0, 9, 9, 0, 0))]
    found = [detections((0, 0, 4, 9, 0, 0.5))]
    assert voc_average_precision(truth, found, 1)["AP_allpoint"] == 1.0
    got = voc_average_precision(truth, found, 1, inclusive_corners=False)
    assert got["AP_allpoint"] == 0.0


def test_overlap_of_exactly_the_threshold_is_correct():
    truth, found = [objects((0, 0, 10, 10, 0, 0))], [detections((0, 0, 5, 10, 0, 0.5))]
    for iou, ap in ((0.5, 1.0), (0.51, 0.0)):
        got = voc_average_precision(truth, found, 1, iou, inclusive_corners=False)
        assert got["AP_allpoint"] == ap


def test_eleven_points_are_exact():
    """3 of 10 objects: the recall .3 is reached, although 3 * .1 > .3 in floats. (4 * 1) / 11."""
    truth = [objects(*((100 * i, 0, 100 * i + 50, 50, 0, 0) for i in range(10)))]
    found = [detections(*((100 * i, 0, 100 * i + 50, 50, 0, 0.5) for i in range(3)))]
    assert voc_average_precision(truth, found, 1)["AP_11point"] == pytest.approx(4 / 11)


def test_classes_without_objects_are_left_out_of_the_mean():
    truth = [objects((*BOX, 0, 0), (*FAR, 1, 1))]
    found = [detections((*BOX, 0, 0.9), (*BOX, 2, 0.8))]
    got = voc_average_precision(truth, found, 3)
    assert got["AP_11point"] == got["AP_allpoint"] == 1.0
    for kind in ("11point", "allpoint"):
        assert np.isnan(got[f"per_class_{kind}"]["1"])
        assert np.isnan(got[f"per_class_{kind}"]["2"])


def test_no_detections_and_no_objects():
    assert voc_average_precision([objects((*BOX, 0, 0))], [detections()], 1)["AP_11point"] == 0.0
    assert np.isnan(voc_average_precision([objects()], [detections()], 1)["AP_allpoint"])
    assert np.isnan(voc_average_precision([], [], 1)["AP_allpoint"])


def test_padding_is_ignored():
    truth = [objects((*BOX, 0, 0), (0, 0, 0, 0, -1, 0))]
    found = [detections((*BOX, 0, 0.5), (0, 0, 0, 0, -1, 0.9))]
    assert voc_average_precision(truth, found, 1)["AP_allpoint"] == 1.0


def test_plain_tuples_are_accepted():
    boxes = np.array([BOX], np.float32)
    truth = [(boxes, np.zeros(1, int), np.zeros(1, bool))]
    found = [(boxes, np.ones(1, np.float32), np.zeros(1, int))]
    assert voc_average_precision(truth, found, 1)["AP_allpoint"] == 1.0


def test_errors_name_the_entry():
    with pytest.raises(ValueError, match="ground_truth has 1 images and detections 0"):
        voc_average_precision([objects()], [], 1)
    with pytest.raises(ValueError, match=r"detections\[0\]\.labels: 3 is not in 0 \.\. 0"):
        voc_average_precision([objects()], [detections((*BOX, 3, 0.5))], 1)
    with pytest.raises(ValueError, match="are not 2 distinct names"):
        voc_average_precision([], [], 2, names=("a", "a"))
    short = VocDetections(np.zeros((2, 4)), np.zeros(1), np.zeros(2, int))
    with pytest.raises(ValueError, match=r"detections\[0\]: 2 boxes, 2 labels and 1"):
        voc_average_precision([objects()], [short], 1)
