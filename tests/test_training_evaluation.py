"""Scoring and images of detections, with the ground truth itself as detections."""

import pytest
from small import small_config

from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.training.evaluation import draw_examples, score


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
def test_a_class_named_wrongly_costs_both_classes(dataset, metric):
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
def test_no_detection_at_all_is_zero_and_no_crash(dataset, metric):
    found = score([], dataset, small_config(evaluation__metric=metric))
    assert set(found.summary.values()) <= {0.0, -1.0}


def test_images_show_what_passes_the_threshold(dataset):
    config = small_config()
    with_boxes = draw_examples(perfect(dataset), dataset, config)
    low = [{**result, "score": 0.1} for result in perfect(dataset)]
    without = draw_examples(low, dataset, config)
    assert with_boxes.shape == without.shape and (with_boxes != without).any()
    assert (without == draw_examples([], dataset, config)).all()
    assert draw_examples([], dataset, small_config(evaluation__example_images=0)) is None
