"""COCO's AP against its published example, a case by hand, and properties."""

import copy
import json
import math
import sys

import numpy as np
import pytest

from retinanet_jax.data.records import Categories
from retinanet_jax.metrics.coco import SUMMARY_NAMES, coco_average_precision, to_coco_results


def ground_truth(boxes=(), categories=((1, "cat"), (7, "dog")), num_images=2):
    """Boxes are (image_id, category_id, xywh), with optional other fields as a fourth entry."""
    annotations = [
        {
            "id": index,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": list(bbox),
            "area": bbox[2] * bbox[3],
            "iscrowd": 0,
            **(more[0] if more else {}),
        }
        for index, (image_id, category_id, bbox, *more) in enumerate(boxes)
    ]
    return {
        "images": [{"id": i, "width": 200, "height": 200} for i in range(1, num_images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in categories],
    }


def result(image_id, category_id, bbox, score):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(bbox),
        "score": score,
    }


@pytest.fixture(scope="module")
def example(shared_dir):
    folder = shared_dir / "data" / "coco_eval"
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    return folder / "instances_val2014_100.json", results


def published_numbers(path):
    """The twelve values of section `type=bbox` of the COCO API's example output."""
    section = path.read_text().split("type=bbox")[1].split("type=")[0]
    return [float(line.split("=")[-1]) for line in section.splitlines() if " Average " in line]


def test_twelve_numbers_equal_the_published_ones(example, shared_dir, capsys):
    truth, results = example
    published = published_numbers(shared_dir / "data" / "coco_eval" / "val2014_fake_eval_res.txt")
    metrics = coco_average_precision(truth, results)
    assert tuple(metrics.summary) == SUMMARY_NAMES
    np.testing.assert_allclose(list(metrics.summary.values()), published, atol=5.01e-4)
    defined = [ap for ap in metrics.per_class.values() if ap >= 0]
    np.testing.assert_allclose(np.mean(defined), metrics.summary["AP"], atol=1e-12)
    assert len(metrics.per_class) == 80 and "person" in metrics.per_class
    assert capsys.readouterr().out == ""


def test_ground_truth_as_detections_is_perfect(example):
    truth = json.loads(example[0].read_text())
    perfect = [
        result(a["image_id"], a["category_id"], a["bbox"], 1.0)
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
    metrics = coco_average_precision(truth, perfect)
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        np.testing.assert_allclose(metrics.summary[name], 1.0, atol=1e-9, err_msg=name)


def test_by_hand():
    """Cat: two objects of 40 x 40 in two images, three detections.

    score .9: image 1, x moved by 8: IoU 32 / 48 = .667, correct at .50 to .65 (4 of 10)
    score .8: image 1, far away: wrong
    score .7: image 2, exact: correct at all ten

    Thresholds .50 to .65: correct, wrong, correct. Precision is 1 up to recall .5 (51 of the 101
    recalls 0, .01, .., 1) and 2/3 up to recall 1 (50 recalls): (51 + 50 * 2 / 3) / 101.
    Thresholds .70 to .95: wrong, wrong, correct: precision 1/3 up to recall .5: 51 / 3 / 101.
    """
    truth = ground_truth([(1, 1, (50, 50, 40, 40)), (2, 1, (10, 10, 40, 40))])
    results = [
        result(1, 1, (58, 50, 40, 40), 0.9),
        result(1, 1, (150, 150, 40, 40), 0.8),
        result(2, 1, (10, 10, 40, 40), 0.7),
    ]
    loose, strict = (51 + 50 * 2 / 3) / 101, 51 / 3 / 101
    metrics = coco_average_precision(truth, results)
    got = metrics.summary
    np.testing.assert_allclose(got["AP50"], loose, atol=1e-9)
    np.testing.assert_allclose(got["AP75"], strict, atol=1e-9)
    np.testing.assert_allclose(got["AP"], 0.4 * loose + 0.6 * strict, atol=1e-9)
    # Of two objects, one detection each: both found at 4 thresholds, one at 6.
    np.testing.assert_allclose(got["AR100"], 0.4 * 1 + 0.6 * 0.5, atol=1e-9)
    assert got["APs"] == got["APl"] == -1.0 and got["APm"] == got["AP"]
    assert metrics.per_class == {"cat": got["AP"], "dog": -1.0}


def test_no_detections():
    truth = ground_truth([(1, 1, (50, 50, 40, 40))])
    metrics = coco_average_precision(truth, [])
    assert metrics.summary["AP"] == metrics.summary["AR100"] == metrics.summary["APm"] == 0.0
    assert metrics.summary["APs"] == -1.0
    assert metrics.per_class == {"cat": 0.0, "dog": -1.0}


def test_no_objects():
    metrics = coco_average_precision(ground_truth(), [result(1, 1, (0, 0, 9, 9), 0.5)])
    assert set(metrics.summary.values()) == {-1.0}


def test_annotations_may_have_the_id_zero():
    """pycocotools alone interprets the id 0 as "no match"."""
    truth = ground_truth([(1, 1, (50, 50, 40, 40))])
    assert truth["annotations"][0]["id"] == 0
    metrics = coco_average_precision(truth, [result(1, 1, (50, 50, 40, 40), 0.5)])
    np.testing.assert_allclose(metrics.summary["AP"], 1.0, atol=1e-9)


def test_images_without_detections_count():
    """Two images with one object each; only the first is detected."""
    truth = ground_truth([(1, 1, (50, 50, 40, 40)), (2, 1, (50, 50, 40, 40))])
    results = [result(1, 1, (50, 50, 40, 40), 0.5)]
    everything = coco_average_precision(truth, results)
    np.testing.assert_allclose(everything.summary["AP"], 51 / 101, atol=1e-9)
    first = coco_average_precision(truth, results, image_ids=[1])
    np.testing.assert_allclose(first.summary["AP"], 1.0, atol=1e-9)
    assert coco_average_precision(truth, results, image_ids=[2]).summary["AP"] == 0.0


def test_crowds_are_ignored():
    crowd = {"iscrowd": 1}
    truth = ground_truth([(1, 1, (50, 50, 40, 40)), (1, 1, (100, 100, 90, 90), crowd)])
    results = [
        result(1, 1, (110, 110, 20, 20), 0.9),
        result(1, 1, (150, 150, 20, 20), 0.8),
        result(1, 1, (50, 50, 40, 40), 0.5),
    ]
    np.testing.assert_allclose(coco_average_precision(truth, results).summary["AP"], 1.0, atol=1e-9)


def test_area_and_crowd_have_defaults():
    truth = ground_truth([(1, 1, (50, 50, 40, 40))])
    for field in ("id", "area", "iscrowd"):
        del truth["annotations"][0][field]
    metrics = coco_average_precision(truth, [result(1, 1, (50, 50, 40, 40), 0.5)])
    np.testing.assert_allclose(metrics.summary["APm"], 1.0, atol=1e-9)


@pytest.mark.parametrize("backend", ["pycocotools", "hotcoco"])
def test_arguments_are_not_modified(backend):
    truth = ground_truth([(1, 1, (50, 50, 40, 40))])
    results = [result(1, 1, (50, 50, 40, 40), 0.5)]
    before = copy.deepcopy((truth, results))
    coco_average_precision(truth, results, backend=backend)
    assert (truth, results) == before


def test_categories_with_the_same_name():
    truth = ground_truth([(1, 2, (9, 9, 40, 40))], categories=((2, "mouse"), (3, "mouse")))
    metrics = coco_average_precision(truth, [])
    assert metrics.per_class == {"mouse (2)": 0.0, "mouse (3)": -1.0}


def test_the_ap_of_a_class_does_not_depend_on_the_order_of_the_categories():
    """pycocotools sorts them by id."""
    boxes = [(1, 1, (50, 50, 40, 40)), (2, 7, (10, 10, 40, 40)), (2, 4, (90, 90, 40, 40))]
    truth = ground_truth(boxes, categories=((7, "dog"), (1, "cat"), (4, "eel")))
    metrics = coco_average_precision(truth, [result(2, 7, (10, 10, 40, 40), 0.9)])
    assert metrics.per_class == {"dog": pytest.approx(1), "cat": 0, "eel": 0}
    assert list(metrics.per_class) == ["dog", "cat", "eel"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (result(99, 1, (0, 0, 9, 9), 0.5), r"results\[1\]\.image_id: 99 is not an image of"),
        (result(1, 0, (0, 0, 9, 9), 0.5), r"results\[1\]\.category_id: 0 is not a category"),
        (result(1, 1, (0, 0, 9), 0.5), r"results\[1\]\.bbox: \[0, 0, 9\] is not"),
        (result(1, 1, (0, 0, 9, math.inf), 0.5), r"results\[1\]\.bbox: \[0, 0, 9, inf\] is not"),
        (result(1, 1, (0, 0, 9, 9), math.nan), r"results\[1\]\.score: nan is not a finite number"),
        (
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]},
            r"results\[1\]: no field 'score'",
        ),
    ],
)
def test_bad_results(wrong, message):
    good = result(1, 1, (0, 0, 9, 9), 0.5)
    with pytest.raises(ValueError, match=message):
        coco_average_precision(ground_truth(), [good, wrong])


def test_bad_ground_truth(tmp_path):
    path = tmp_path / "instances.json"
    path.write_bytes(b"{not json")
    with pytest.raises(ValueError, match=r"instances\.json: not a JSON file"):
        coco_average_precision(path, [])
    with pytest.raises(ValueError, match="no list 'annotations'"):
        coco_average_precision({"images": [], "categories": []}, [])
    with pytest.raises(ValueError, match=r"annotations\[0\]\.category_id: 5 is not a category"):
        coco_average_precision(ground_truth([(1, 5, (0, 0, 9, 9))]), [])
    with pytest.raises(ValueError, match="image_ids: 12 are not images"):
        coco_average_precision(ground_truth(), [], image_ids=[1, 12])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_the_file(tmp_path, encoding):
    path = tmp_path / "instances.json"
    truth = ground_truth([(1, 1, (50, 50, 40, 40))], categories=((1, "Käfer"),))
    path.write_text(json.dumps(truth, ensure_ascii=False), encoding=encoding)
    assert coco_average_precision(path, []).per_class == {"Käfer": 0.0}


def random_case(seed: int):
    """Objects with crowds and small areas, shifted and random detections, many equal scores."""
    rng = np.random.default_rng(seed)
    boxes, results = [], []
    for image_id in range(1, 13):
        for _ in range(rng.integers(0, 7)):
            xywh = np.concatenate([rng.uniform(0, 100, 2), np.exp(rng.uniform(1, 4.6, 2))])
            category = int(rng.choice([1, 7]))
            area = float(xywh[2] * xywh[3] * rng.uniform(0.3, 1))
            crowd = int(rng.random() < 0.15)
            boxes.append((image_id, category, xywh.tolist(), {"area": area, "iscrowd": crowd}))
            for _ in range(rng.integers(0, 4)):
                near = xywh + rng.normal(0, 0.1, 4) * np.tile(xywh[2:], 2)
                near[2:] = np.maximum(near[2:], 1)
                results.append(result(image_id, category, near.tolist(), rng.integers(1, 9) / 9))
        for _ in range(rng.integers(0, 120)):
            xywh = np.concatenate([rng.uniform(0, 150, 2), rng.uniform(1, 90, 2)]).tolist()
            results.append(result(image_id, int(rng.choice([1, 7])), xywh, rng.integers(1, 9) / 9))
    return ground_truth(boxes, num_images=12), results


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("image_ids", [None, [2, 3, 11]])
def test_backends_give_the_same_numbers(seed, image_ids):
    truth, results = random_case(seed)
    ours, theirs = (
        coco_average_precision(truth, results, image_ids, backend=backend)
        for backend in ("pycocotools", "hotcoco")
    )
    assert 0 < ours.summary["AP"] < 1
    assert theirs == ours


@pytest.mark.parametrize("boxes", [(), [(1, 7, (50, 50, 40, 40))]])
@pytest.mark.parametrize("results", [[], [result(1, 7, (50, 50, 40, 40), 0.5)]])
def test_backends_agree_without_objects_or_detections(boxes, results):
    truth = ground_truth(boxes)
    assert coco_average_precision(truth, results, backend="hotcoco") == coco_average_precision(
        truth, results
    )


def test_published_numbers_by_hotcoco(example):
    assert coco_average_precision(*example, backend="hotcoco") == coco_average_precision(*example)


def test_unknown_and_missing_backends(monkeypatch):
    with pytest.raises(ValueError, match="backend: 'fast' is not one of pycocotools, hotcoco"):
        coco_average_precision(ground_truth(), [], backend="fast")
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(ValueError, match="hotcoco is not installed; run pip install"):
        coco_average_precision(ground_truth(), [], backend="hotcoco")


def test_results_format():
    """xyxy to xywh, labels to ids, without padding, serializable as JSON."""
    categories = Categories(names=("cat", "dog"), ids=(1, 7))
    boxes = np.array([[1, 2, 11, 22], [5, 5, 6, 7], [0, 0, 0, 0]], np.float32)
    scores, labels = np.array([0.5, 0.25, 0], np.float32), np.array([1, 0, -1], np.int32)
    results = to_coco_results(np.int64(42), boxes, scores, labels, categories)
    assert results == [result(42, 7, (1, 2, 10, 20), 0.5), result(42, 1, (5, 5, 1, 2), 0.25)]
    assert json.loads(json.dumps(results)) == results
    empty = to_coco_results(1, boxes[:0], scores[:0], labels[:0], categories)
    assert empty == []
