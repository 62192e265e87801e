"""Outcomes, curves, errors, calibration and confusions against pycocotools and by hand."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from detection_tables import CATEGORIES, perfect_results, random_results, random_truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet_jax.data.records import Categories
from retinanet_jax.metrics.coco import coco_average_precision
from retinanet_jax.reports.analysis.calibration import calibrate
from retinanet_jax.reports.analysis.confusion_matrix import confusion_matrix
from retinanet_jax.reports.analysis.detection_outcomes import (
    AREAS,
    COCO_IOUS,
    class_outcomes,
    match_detections,
    read_tables,
)
from retinanet_jax.reports.analysis.error_curves import CURVES, error_curves, find_similar
from retinanet_jax.reports.analysis.precision_curves import mean_over_classes, precision_curves


class WithIgnore(COCOeval):
    """pycocotools with the field `ignore` of COCO's Matlab code, for objects that are no crowds."""

    def _prepare(self):
        kept = {a["id"]: a.get("ignore", 0) for a in self.cocoGt.dataset["annotations"]}
        super()._prepare()
        for objects in self._gts.values():
            for entry in objects:
                entry["ignore"] = entry["iscrowd"] or kept[entry["id"]]


def reference(truth, results, ious, use_cats=1):
    """pycocotools' precision [t r k a]."""
    with contextlib.redirect_stdout(io.StringIO()):
        given = COCO()
        given.dataset = copy.deepcopy(truth)
        given.createIndex()
        run = WithIgnore(given, given.loadRes(copy.deepcopy(results)), "bbox")
        run.params.iouThrs, run.params.maxDets, run.params.useCats = np.array(ious), [100], use_cats
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][..., 0]


def analyze(truth, results):
    """[7 r k a]: the seven curves by the steps of CocoEval.m, each a run of pycocotools."""
    ps = np.concatenate([reference(truth, results, [0.75, 0.5, 0.1]), np.zeros((4, 101, 5, 4))])
    supers = {c["id"]: c["supercategory"] for c in truth["categories"]}
    for k, own in enumerate(sorted(supers)):
        of_class = [r for r in results if r["category_id"] == own]
        for row, families in ((3, {supers[own]}), (4, set(supers.values()))):
            kept = copy.deepcopy(truth)
            kept["annotations"] = [
                {**a, "ignore": int(a["category_id"] != own)}
                for a in kept["annotations"]
                if supers[a["category_id"]] in families
            ]
            if of_class:
                ps[row, :, k] = reference(kept, of_class, [0.1], use_cats=0)[0, :, 0]
    absent = ps[0] == -1
    ps[5], ps[6] = ps[4] > 0, 1
    ps[:, absent] = np.nan
    return ps


@pytest.mark.parametrize("seed", range(4))
def test_error_curves_equal_pycocotools(seed):
    truth = random_truth(seed)
    results = random_results(truth, seed)
    expected = analyze(truth, results)
    tables, similar = read_tables(truth, results, CATEGORIES), find_similar(truth, CATEGORIES)
    for place, area in enumerate(AREAS):
        found = error_curves(*tables, similar, area)
        np.testing.assert_allclose(found.transpose(1, 2, 0), expected[..., place], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_precision_curves_equal_pycocotools(seed):
    truth = random_truth(seed)
    results = random_results(truth, seed)
    tables = read_tables(truth, results, CATEGORIES)
    found = np.array([precision_curves(class_outcomes(*tables, k, COCO_IOUS)) for k in range(5)])
    expected = reference(truth, results, COCO_IOUS)[..., 0].transpose(2, 0, 1)
    np.testing.assert_allclose(np.nan_to_num(found, nan=-1), expected, atol=1e-12)
    summary = coco_average_precision(truth, results).summary
    assert mean_over_classes(found).mean() == pytest.approx(summary["AP"], abs=1e-12)


def test_areas_of_published_results_equal_the_metric(shared_dir):
    folder = shared_dir / "data" / "coco_eval"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    entries = truth["categories"]
    categories = Categories(tuple(c["name"] for c in entries), tuple(c["id"] for c in entries))
    tables = read_tables(truth, results, categories)
    found = mean_over_classes(error_curves(*tables, find_similar(truth, categories)))
    areas = dict(zip(CURVES, found.mean(axis=1), strict=True))
    summary = coco_average_precision(truth, results).summary
    assert areas["C50"] == pytest.approx(summary["AP50"], abs=1e-12)
    assert areas["C75"] == pytest.approx(summary["AP75"], abs=1e-12)
    # In the published results every detection is near an object.
    assert areas["C75"] < areas["C50"] < areas["Loc"] < areas["Sim"] < areas["Oth"]
    assert areas["Oth"] == pytest.approx(areas["BG"]) and areas["FN"] == 1


def test_perfect_detections_have_no_errors():
    truth = random_truth()
    results = perfect_results(truth)
    tables = read_tables(truth, results, CATEGORIES)
    curves = error_curves(*tables, find_similar(truth, CATEGORIES))
    defined = ~np.isnan(curves[:, 0, 0])
    assert defined.tolist() == [True, True, True, False, True]
    assert (curves[defined] == 1).all()
    outcomes = class_outcomes(*tables, 0, COCO_IOUS)
    assert outcomes.correct.all() and outcomes.counted.all()
    found = calibrate(outcomes.scores, outcomes.correct[0])
    assert found.expected_error == found.largest_error == found.bias == 0
    matrix = confusion_matrix(*tables, 5, score=0.5)
    counts = np.bincount(tables[0].label[~tables[0].crowd], minlength=6)
    assert (matrix == np.diag(counts)).all()


def test_no_detections_and_no_objects():
    truth = random_truth()
    for results, content in (([], truth), (perfect_results(truth), {**truth, "annotations": []})):
        tables = read_tables(content, results, CATEGORIES)
        curves = error_curves(*tables, [[]] * 5)
        matrix = confusion_matrix(*tables, 5, score=0)
        if results:
            assert np.isnan(curves).all() and matrix[-1].sum() == matrix.sum() == len(results)
        else:
            assert (np.nan_to_num(curves[:, :6]) == 0).all()
            assert matrix[:, -1].sum() == matrix.sum() == (~tables[0].crowd).sum()


@pytest.mark.parametrize("seed", range(4))
def test_confusion_matrix_adds_up(seed):
    truth = random_truth(seed)
    tables = read_tables(truth, random_results(truth, seed), CATEGORIES)
    matrix = confusion_matrix(*tables, 5, score=0.0)
    objects = np.bincount(tables[0].label[~tables[0].crowd], minlength=5)
    assert (matrix[:5].sum(axis=1) == objects).all() and matrix[5, 5] == 0
    for label in range(5):
        found = class_outcomes(*tables, label, (0.5,))
        assert matrix[label, label] == found.correct.sum()
        # Detections of a crowd of their class are left out of both.
        assert matrix[:, label].sum() == found.counted.sum()
    strict = confusion_matrix(*tables, 5, score=0.5)
    assert strict[:, :5].sum() == found_above(tables, 0.5)


def found_above(tables, score):
    kept = [class_outcomes(*tables, label, (0.5,)) for label in range(5)]
    return sum(int((found.counted[0] & (found.scores >= score)).sum()) for found in kept)


def test_confusions_by_hand():
    """Two cats and a dog: a cat is detected twice, the other as a dog, and the dog is missed."""

    def entry(category, x, **more):
        return {"image_id": 1, "category_id": category, "bbox": [x, 0.0, 40.0, 40.0], **more}

    objects = [entry(1, 0.0), entry(1, 100.0), entry(3, 200.0)]
    results = [
        entry(1, 4.0, score=0.9),  # IoU 36 / 44
        entry(1, 0.0, score=0.8),  # exact, but a duplicate
        entry(3, 100.0, score=0.7),
        entry(3, 230.0, score=0.6),  # IoU 10 / 70
        entry(1, 300.0, score=0.2),  # below the lowest score
    ]
    truth = {"images": [{"id": 1}], "annotations": objects, "categories": []}
    tables = read_tables(truth, results, Categories(("cat", "dog"), (1, 3)))
    matrix = confusion_matrix(*tables, 2, score=0.3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 1], [1, 1, 0]]


def test_matching_prefers_the_last_of_equals_and_reuses_crowds():
    overlaps = np.array([[0.6, 0.6, 0.9], [0.7, 0.2, 0.9], [0.0, 0.4, 0.9]])
    crowd = np.array([False, False, True])
    assert match_detections(overlaps, crowd, crowd, 0.5).tolist() == [1, 0, 2]
    assert match_detections(overlaps, ~crowd, ~crowd, 0.5).tolist() == [2, 0, -1]
    assert match_detections(
        np.ones((1, 1)), np.array([False]), np.array([False]), 1.0
    ).tolist() == [0]


def test_calibration_by_hand():
    """Two bins: (.0, .5] has scores .2, .5 and one right; (.5, 1] has .6, 1, 1 and two right."""
    scores = np.array([0.2, 0.5, 0.6, 1.0, 1.0])
    correct = np.array([False, True, False, True, True])
    found = calibrate(scores, correct, bins=2)
    assert found.counts.tolist() == [2, 3]
    np.testing.assert_allclose(found.score, [0.35, 2.6 / 3])
    np.testing.assert_allclose(found.precision, [0.5, 2 / 3])
    assert found.expected_error == pytest.approx((2 * 0.15 + 3 * 0.2) / 5)
    assert found.largest_error == pytest.approx(0.2)
    assert found.bias == pytest.approx(3.3 / 5 - 3 / 5)


def test_calibration_of_perfect_scores_and_of_none():
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    correct = rng.random(200_000) < scores
    assert calibrate(scores, correct).expected_error < 0.01
    assert calibrate(np.sqrt(scores), correct).bias == pytest.approx(2 / 3 - 1 / 2, abs=0.01)
    nothing = calibrate(np.zeros(0), np.zeros(0, bool))
    assert nothing.counts.sum() == 0 and np.isnan(nothing.expected_error)
