"""Evaluation with the ground truth as detections; undefined metrics; example images."""

import dataclasses

import pytest
from small import small_config

from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.training.evaluation import score
from retinanet_jax.training.evaluation_files import draw_examples


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(small_config(data__shapes__num_eval=30).data, "validation")


def perfect(dataset):
    return [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for a in dataset.ground_truth()["annotations"]
    ]


def test_the_ground_truth_scores_one_in_both_metrics(dataset):
    coco = score(perfect(dataset), dataset, small_config())
    assert coco.summary["AP"] == pytest.approx(1.0) and set(coco.per_class.values()) == {1.0}
    voc = score(perfect(dataset), dataset, small_config(evaluation__metric="voc"))
    assert voc.summary == pytest.approx({"AP_11point": 1.0, "AP_allpoint": 1.0})
    assert list(voc.per_class) == list(dataset.categories.names)


@pytest.mark.parametrize("metric", ["coco", "voc"])
def test_one_class_labelled_as_another_lowers_the_ap_of_both(dataset, metric):
    results = perfect(dataset)
    first, second = dataset.categories.ids[:2]
    for result in results:
        if result["category_id"] == first:
            result["category_id"] = second
    found = score(results, dataset, small_config(evaluation__metric=metric))
    names = dataset.categories.names
    assert found.per_class[names[0]] == 0 and found.per_class[names[1]] < 1
    assert found.per_class[names[2]] == pytest.approx(1.0)


@pytest.mark.parametrize("metric", ["coco", "voc"])
def test_without_detections_metrics_are_zero_or_undefined(dataset, metric):
    found = score([], dataset, small_config(evaluation__metric=metric))
    assert set(found.summary.values()) <= {0.0, None}
    assert next(iter(found.summary.values())) == 0.0


@pytest.mark.parametrize("metric", ["coco", "voc"])
def test_without_objects_every_metric_is_undefined(dataset, metric):
    """pycocotools gives -1 here, which would pass for a number."""
    truth = dataset.ground_truth()
    empty = dataclasses.replace(dataset, ground_truth=lambda: truth | {"annotations": []})
    found = score(perfect(dataset), empty, small_config(evaluation__metric=metric))
    assert set(found.summary.values()) == {None} and set(found.per_class.values()) == {None}


def test_example_images_show_detections_above_the_threshold(dataset):
    config = small_config()
    with_boxes = draw_examples(perfect(dataset), dataset, config)
    low = [{**result, "score": 0.1} for result in perfect(dataset)]
    without = draw_examples(low, dataset, config)
    assert with_boxes.shape == without.shape and (with_boxes != without).any()
    assert (without == draw_examples([], dataset, config)).all()
    assert draw_examples([], dataset, small_config(evaluation__example_images=0)) is None
