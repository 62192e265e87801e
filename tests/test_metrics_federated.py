"""LVIS against cases by hand and pycocotools, Open Images against cases by hand."""

import copy
import dataclasses
import json
import re
import sys

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small import small_config
from test_metrics_coco import ground_truth, random_case, result

from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.metrics.federated import (
    lvis_average_precision,
    open_images_average_precision,
)
from retinanet_jax.training.evaluation import score
from retinanet_jax.training.run_checks import evaluation_warnings

LVIS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"]
LVIS += ["AR300", "ARs", "ARm", "ARl"]
BOX, OTHER, THIRD = (10, 10, 40, 40), (100, 10, 40, 40), (10, 100, 40, 40)


def lvis_truth(boxes, *, negative=None, partial=None, frequencies="rcf"):
    """A set of LVIS: classes 1, 2, 3; by image id, those known to be absent or not exhaustive."""
    truth = ground_truth(boxes, categories=((1, "ant"), (2, "bee"), (3, "cat")))
    for image in truth["images"]:
        image["neg_category_ids"] = (negative or {}).get(image["id"], [])
        image["not_exhaustive_category_ids"] = (partial or {}).get(image["id"], [])
    for category, frequency in zip(truth["categories"], frequencies, strict=True):
        category["frequency"] = frequency
    return truth


def test_only_verified_classes_of_an_image_count():
    """A wrong detection of score .9 beside a right one of .5 halves the AP, if it counts."""
    right = [result(1, 1, BOX, 0.5), result(2, 2, BOX, 0.5)]
    truth = lvis_truth([(1, 1, BOX), (2, 2, BOX)], negative={2: [1]})
    found = lvis_average_precision(truth, right)
    assert list(found.summary) == LVIS
    assert found.summary["AP"] == pytest.approx(1) and found.summary["AR300"] == pytest.approx(1)
    assert found.summary["APf"] == -1 and found.per_class["cat"] == -1
    for wrong, expected in (
        (result(2, 1, OTHER, 0.9), {"ant": 0.5, "bee": 1}),  # known to be absent
        (result(1, 1, OTHER, 0.9), {"ant": 0.5, "bee": 1}),  # annotated in the image
        (result(1, 2, BOX, 0.9), {"ant": 1, "bee": 1}),  # neither
        (result(1, 3, BOX, 0.9), {"ant": 1, "bee": 1}),  # no object at all
    ):
        found = lvis_average_precision(truth, [*right, wrong])
        assert found.per_class == pytest.approx(expected | {"cat": -1})
        assert found.summary["APr"] == pytest.approx(expected["ant"])
        assert found.summary["APc"] == pytest.approx(expected["bee"])
    partly = lvis_truth([(1, 1, BOX), (2, 2, BOX)], partial={1: [1]})
    found = lvis_average_precision(partly, [*right, result(1, 1, OTHER, 0.9)])
    assert found.per_class["ant"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_lvis_is_coco_on_verified_pairs(seed):
    """pycocotools on the pairs of image and class that count, with 300 detections."""
    truth, results = random_case(seed)
    rng = np.random.default_rng(seed)
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 0
    counted = {(a["image_id"], a["category_id"]) for a in truth["annotations"]}
    for image in truth["images"]:
        image["not_exhaustive_category_ids"] = []
        absent = [c for c in (1, 7) if (image["id"], c) not in counted and rng.random() < 0.5]
        image["neg_category_ids"] = absent
        counted |= {(image["id"], c) for c in absent}
    for category in truth["categories"]:
        category["frequency"] = "c"
    before = copy.deepcopy((truth, results))
    found = lvis_average_precision(truth, results)
    assert (truth, results) == before
    kept = [dict(r) for r in results if (r["image_id"], r["category_id"]) in counted]
    assert len(kept) < len(results)

    # pycocotools reads the id 0 as "no match".
    annotations = [a | {"id": a["id"] + 1} for a in truth["annotations"]]
    plain = COCO()
    plain.dataset = {**truth, "annotations": annotations}
    plain.createIndex()
    evaluation = COCOeval(plain, plain.loadRes(kept), "bbox")
    evaluation.params.maxDets = [1, 10, 300]
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]
    for place, area in enumerate(("", "s", "m", "l")):
        aps, ars = precision[..., place], recall[..., place]
        for name, values in ((f"AP{area}", aps), (f"AR{area or 300}", ars)):
            defined = values[values > -1]
            wanted = defined.mean() if defined.size else -1
            assert found.summary[name] == pytest.approx(wanted)
    assert found.summary["APc"] == found.summary["AP"] > 0.01
    assert found.summary["AP50"] == pytest.approx(precision[0, ..., 0].mean())


def test_open_images_has_all_points_and_groups():
    """Right, wrong, right of three objects: 1/3 at precision 1 and 1/3 at precision 2/3."""
    results = [
        result(1, 1, BOX, 0.9),
        result(1, 1, (150, 150, 40, 40), 0.8),
        result(1, 1, OTHER, 0.7),
    ]
    three = ground_truth([(1, 1, BOX), (1, 1, OTHER), (1, 1, THIRD)])
    found = open_images_average_precision(three, results)
    assert found.summary == pytest.approx({"AP50": 1 / 3 + 1 / 3 * 2 / 3})
    assert found.per_class == {"cat": found.summary["AP50"], "dog": -1}
    # Two detections inside the box of a group are one correct one; outside, they are wrong.
    for mark in ({"is_group_of": True}, {"iscrowd": 1}):
        group = ground_truth([(1, 1, BOX), (1, 1, (100, 100, 90, 90), mark)])
        inside = [result(1, 1, (110, 110, 20, 20), 0.8), result(1, 1, (150, 150, 20, 20), 0.7)]
        found = open_images_average_precision(group, [result(1, 1, BOX, 0.9), *inside])
        assert found.summary["AP50"] == pytest.approx(1)
        outside = [result(1, 1, (10, 150, 20, 20), 0.95)]
        found = open_images_average_precision(group, [result(1, 1, BOX, 0.9), *inside, *outside])
        assert found.summary["AP50"] == pytest.approx(1 / 2 * 2 / 3 + 1 / 2 * 2 / 3)


@pytest.mark.parametrize("metric", [lvis_average_precision, open_images_average_precision])
def test_without_objects_or_detections(metric):
    nothing = metric(lvis_truth([]), [result(1, 1, BOX, 0.5)])
    assert set(nothing.summary.values()) == set(nothing.per_class.values()) == {-1}
    missed = metric(lvis_truth([(1, 1, BOX)]), [])
    assert next(iter(missed.summary.values())) == 0
    assert missed.per_class == {"ant": 0, "bee": -1, "cat": -1}


def test_categories_with_the_same_name_are_apart():
    truth = lvis_truth([(1, 2, BOX)])
    for category in truth["categories"]:
        category["name"] = "mouse"
    found = lvis_average_precision(truth, [result(1, 2, BOX, 0.5)])
    assert found.per_class == {"mouse (1)": -1, "mouse (2)": pytest.approx(1), "mouse (3)": -1}


def test_annotations_of_coco_are_refused():
    truth = lvis_truth([(1, 1, BOX)])
    for section, field in (
        ("images", "neg_category_ids"),
        ("images", "not_exhaustive_category_ids"),
        ("categories", "frequency"),
    ):
        lacking = copy.deepcopy(truth)
        del lacking[section][1][field]
        message = rf"{section}\[1\] has no field '{field}', which .*data.annotations"
        with pytest.raises(ValueError, match=message):
            lvis_average_precision(lacking, [])
    with pytest.raises(ValueError, match=r"results\[0\].category_id: 0 is not a category"):
        open_images_average_precision(truth, [result(1, 0, BOX, 0.5)])


def test_hotcoco_is_needed_before_the_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    message = r"evaluation.metric: hotcoco is not installed; run pip install .*, or use 'coco'"
    for metric in ("lvis", "open_images"):
        with pytest.raises(ValueError, match=message):
            small_config(evaluation__metric=metric)
    assert small_config().evaluation.metric == "coco"


def test_a_run_can_be_scored_by_them():
    config = small_config(evaluation__metric="lvis")
    dataset = load_dataset(config.data, "validation")
    truth = copy.deepcopy(dataset.ground_truth())
    for image in truth["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for category in truth["categories"]:
        category["frequency"] = "f"
    dataset = dataclasses.replace(dataset, ground_truth=lambda: truth)
    perfect = [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for a in truth["annotations"]
    ]
    found = score(perfect, dataset, config)
    assert found.summary["AP"] == pytest.approx(1) and found.summary["APr"] is None
    assert list(found.per_class) == list(dataset.categories.names)
    (warning,) = evaluation_warnings(dataset, config)
    assert "max_detections=100: LVIS's AP uses up to 300 detections" in warning
    config = small_config(evaluation__metric="open_images")
    assert score(perfect, dataset, config).summary == {"AP50": pytest.approx(1)}
    (warning,) = evaluation_warnings(dataset, config)
    assert re.search("verified labels of whole images are not used", warning)


def test_images_of_lvis_are_found_by_their_address(tmp_path):
    """LVIS's files have coco_url in place of file_name."""
    for split, folder in (("train", "train2017"), ("val", "val2017")):
        truth = lvis_truth([(1, 1, BOX), (2, 2, BOX)])
        (tmp_path / folder).mkdir()
        for image in truth["images"]:
            name = f"{folder}/{image['id']:012}.jpg"
            image["coco_url"] = f"http://images.cocodataset.org/{name}"
            cv2.imwrite(str(tmp_path / name), np.zeros((200, 200, 3), np.uint8))
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/lvis_v1_{split}.json").write_text(json.dumps(truth))
    config = small_config(
        data__name="folder",
        data__root=str(tmp_path),
        data__cache_dir=str(tmp_path / "cache"),
        data__train_split="train",
        data__eval_split="val",
        data__annotations=str(tmp_path / "annotations/lvis_v1_val.json"),
        evaluation__metric="lvis",
        postprocess__max_detections=300,
    )
    dataset = load_dataset(config.data, "val")
    assert len(dataset.source) == 2 and evaluation_warnings(dataset, config) == []
    found = score([result(1, 1, BOX, 0.5), result(2, 2, BOX, 0.5)], dataset, config)
    assert found.summary["AP"] == pytest.approx(1)
