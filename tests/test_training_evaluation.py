"""Evaluation with the ground truth as detections; undefined metrics; example images."""

import dataclasses
import math

import numpy as np
import pytest
from small import small_config

from retinanet_jax.config import sections
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.checkpoints import CheckpointError
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training import evaluation
from retinanet_jax.training.evaluation import add_metric, evaluate, score
from retinanet_jax.training.evaluation_files import class_table, draw_examples
from retinanet_jax.training.run_checks import check_same_classes


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(small_config(data__shapes__num_eval=30).data, "validation")


def perfect(dataset):
    return [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for a in dataset.ground_truth()["annotations"]
    ]


def see_everything(variables, batch):
    """A predict function that detects the objects of a batch, and one more in each padding row."""
    factors = np.asarray(batch.original_sizes / batch.image_sizes)[:, None, [1, 0, 1, 0]]
    labels = np.where(batch.valid[:, None], batch.gt_labels, 0).astype(np.int32)
    return Detections(
        np.asarray(batch.gt_boxes * factors, np.float32),
        np.full(labels.shape, 0.9, np.float32),
        labels,
        labels >= 0,
    )


def test_every_image_is_evaluated_once_and_padding_is_not():
    """14 images in batches of 4: the last has two rows of padding."""
    config = small_config(data__shapes__num_eval=14, pipeline__min_side=48)
    dataset = load_dataset(config.data, "validation")
    done = []
    found = evaluate(
        see_everything, {}, dataset, config, make_mesh(), on_batch=lambda *one: done.append(one)
    )
    assert found.summary["AP"] == pytest.approx(1)
    assert len(found.results) == len(dataset.ground_truth()["annotations"])
    assert done == [(4, 14), (8, 14), (12, 14), (14, 14)]


def test_tiles_are_merged_into_the_results_of_their_image():
    """Only tiles see something here; each object lies whole in one of the tiles of its image."""

    def see_in_tiles(variables, batch):
        found = see_everything(variables, batch)
        size = np.asarray(batch.original_sizes)[:, :1]
        inside = ((found.boxes > 0.3) & (found.boxes < size[..., None] - 0.3)).all(-1)
        return found._replace(valid=found.valid & inside & (size == 64))

    small = {"data__shapes__num_eval": 6, "data__shapes__size_range": (0.1, 0.2)}
    small["data__shapes__image_size"] = (128, 128)
    small["postprocess__nms_iou"] = 0.9  # only copies are merged, no neighbours
    config = small_config(
        data__tile=64, data__tile_overlap=0.5, pipeline__min_side=48, pipeline__max_side=64, **small
    )
    dataset = load_dataset(config.data, "validation")
    done = []
    found = evaluate(
        see_in_tiles, {}, dataset, config, make_mesh(), on_batch=lambda *one: done.append(one)
    )
    # At the edge of the image, an object is at the edge of every tile.
    inner = [
        a
        for a in dataset.ground_truth()["annotations"]
        if min(a["bbox"][:2]) > 0.3 and max(np.add(a["bbox"][:2], a["bbox"][2:])) < 127.7
    ]
    assert len(found.results) == len(inner) > 10
    places = [
        {(entry["image_id"], *np.round(np.multiply(4, entry["bbox"]))) for entry in entries}
        for entries in (found.results, inner)
    ]
    assert places[0] == places[1]
    assert {r["image_id"] for r in found.results} <= {
        i["id"] for i in dataset.ground_truth()["images"]
    }
    assert done[-1] == (6 * 10, 6 * 10)  # the image and 3 x 3 tiles


def test_voc_counts_edges_and_not_inclusive_pixels(dataset):
    """Boxes of 49% of the height; with sides of x2 - x1 + 1 their IoU would be above .5."""
    config = small_config(evaluation__metric="voc")
    results = perfect(dataset)
    for result in results:
        x, y, width, height = result["bbox"]
        result["bbox"] = [x, y, width, 0.49 * height]
    assert score(results, dataset, config).summary["AP_allpoint"] < 0.01
    for result in results:
        result["bbox"][3] *= 0.51 / 0.49
    assert score(results, dataset, config).summary["AP_allpoint"] > 0.99


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


def test_the_table_of_very_many_classes_is_short():
    few = {str(i): i / 100 for i in range(100)}
    assert class_table(few) == ("AP by class", few)
    title, rows = class_table({str(i): (i * 5 % 1204) / 1204 if i else None for i in range(1204)})
    assert title.endswith("all 1,204 classes")
    assert [round(1204 * value) for value in rows.values()] == [*range(1, 21)]


def test_other_classes_are_named_by_their_difference(tmp_path):
    names = tuple(f"class {i}" for i in range(1204))
    stored = Categories(names, tuple(range(1204)))
    check_same_classes(stored, stored, tmp_path)
    other = Categories(("cat", *names[9:]), tuple(range(1196)))
    with pytest.raises(
        CheckpointError,
        match=r"class 0, class 1, class 2, class 3, class 4 and 4 more only in the checkpoint, "
        r"cat only in the data; use another",
    ):
        check_same_classes(stored, other, tmp_path)
    with pytest.raises(CheckpointError, match="the same names in a different order"):
        check_same_classes(stored, Categories(names[::-1], stored.ids), tmp_path)


def test_a_metric_of_ones_own_may_be_negative(dataset, monkeypatch):
    """Higher is better, so an error is returned as its negative; -1 is a value as well."""
    monkeypatch.setattr(sections, "METRICS", [*sections.METRICS])
    monkeypatch.setattr(evaluation, "METRICS", dict(evaluation.METRICS))
    add_metric("mine", lambda *_: ({"loss": -1.0, "other": math.nan}, {"a": -2.5}))
    found = score([], dataset, small_config(evaluation__metric="mine"))
    assert found.summary == {"loss": -1.0, "other": None} and found.per_class == {"a": -2.5}
