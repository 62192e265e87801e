"""Evaluation with test-time augmentation and tiles, against the Detector and pycocotools."""

import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small import small_config
from small_detector import small_detector

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.pipeline.transforms import mirror
from retinanet_jax.inference.test_time_augmentation import ViewOptions
from retinanet_jax.runtime.checkpoints import CheckpointError
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training.evaluation import evaluate
from retinanet_jax.training.run_checks import evaluation_warnings
from retinanet_jax.training.workdir_evaluation import evaluate_workdir, with_tiles


@pytest.fixture(scope="module")
def detector():
    """Of batches of four, as the evaluations have them: other sizes round in another way."""
    return small_detector(batch_size=4)


@pytest.fixture(scope="module")
def dataset(detector):
    """Five images; the objects are every second detection, moved by up to a tenth of its sides."""
    config = small_config(data__shapes__image_size=(64, 96))
    found = load_dataset(config.data, "validation")
    source, rng, objects = found.source, np.random.default_rng(0), []
    for i, detections in enumerate(detector([source[i].image for i in range(len(source))])):
        for box, label in list(zip(detections.boxes, detections.labels, strict=True))[::2]:
            x1, y1, x2, y2 = box + rng.uniform(-0.1, 0.1, 4) * np.tile(box[2:] - box[:2], 2)
            objects.append((source.image_id(i), int(label), [x1, y1, x2 - x1, y2 - y1]))
    truth = found.ground_truth() | {
        "categories": [{"id": i, "name": str(i)} for i in detector.categories.ids],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": detector.categories.ids[label],
                "bbox": [float(value) for value in bbox],
                "area": float(bbox[2] * bbox[3]),
                "iscrowd": 0,
            }
            for number, (image_id, label, bbox) in enumerate(objects, start=1)
        ],
    }
    return dataclasses.replace(
        found, categories=detector.categories, ground_truth=lambda: json.loads(json.dumps(truth))
    )


@pytest.fixture(scope="module")
def plain(detector, dataset):
    """The evaluation of whole images in one view."""
    return evaluate(detector.predict_fn, detector.variables, dataset, detector.config, make_mesh())


def scored_by_pycocotools(detector, dataset, **options):
    """The twelve numbers of the Detector's own detections, and these in COCO's format."""
    source, results = dataset.source, []
    found = detector([source[i].image for i in range(len(source))], **options)
    for i, detections in enumerate(found):
        for (x1, y1, x2, y2), score, label in zip(
            *(x.tolist() for x in (detections.boxes, detections.scores, detections.labels)),
            strict=True,
        ):
            category = detector.categories.ids[label]
            entry = {"image_id": source.image_id(i), "category_id": category, "score": score}
            results.append(entry | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset.ground_truth()
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(entry) for entry in results]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, results


@pytest.mark.parametrize(
    "options",
    [
        {"flip": True, "scales": (1.0, 1.5)},
        {"flip": True, "merge": "weighted"},
        {"tile": 48, "overlap": 0.25, "merge": "weighted"},
    ],
    ids=str,
)
def test_the_detections_of_the_detector_are_scored(detector, dataset, plain, options):
    stats, wanted = scored_by_pycocotools(detector, dataset, **options)
    given = dict(options)
    tile, overlap = given.pop("tile", None), given.pop("overlap", "auto")
    options = ViewOptions(**given)
    config = with_tiles(detector.config, tile, overlap, options)
    done = []
    found = evaluate(
        detector.predict_fn,
        detector.variables,
        dataset,
        config,
        make_mesh(),
        options=options,
        on_batch=lambda *one: done.append(one),
    )
    assert len(found.results) == len(wanted) > 100
    places = {entry["image_id"] for entry in wanted}
    for image_id in places:
        ours, theirs = (
            [(*entry["bbox"], entry["score"], entry["category_id"]) for entry in entries]
            for entries in (
                [entry for entry in found.results if entry["image_id"] == image_id],
                [entry for entry in wanted if entry["image_id"] == image_id],
            )
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    ours = [-1 if value is None else value for value in found.summary.values()]
    np.testing.assert_allclose(ours, stats)
    assert found.summary != plain.summary and plain.detection["flip"] is False
    assert 0.02 < found.summary["AP"] < 0.95
    assert done[-1][0] == done[-1][1] >= len(dataset.source) * len(options.views)
    words = {"flip": False, "scales": (1.0,), "merge": "nms", "tile": tile}
    overlap = 0.2 if tile is None else 0.25
    assert found.detection == words | {"overlap": overlap} | given


def test_boxes_are_mirrored_with_the_image():
    image = np.zeros((4, 10, 3), np.uint8)
    image[1:3, 2:5] = 255
    objects = np.float32([[2, 1, 5, 3]]), np.int32([0]), np.zeros(1, bool), np.float32([6])
    seen = mirror(Example(image, *objects, image_id=1))
    x1, y1, x2, y2 = seen.boxes[0].astype(int)
    assert (seen.image[y1:y2, x1:x2] == 255).all() and (seen.image == 255).sum() == 6 * 3


def test_invalid_options_are_errors_before_the_checkpoint_is_read(detector, tmp_path):
    for options, message in (
        ({"merge": "soft"}, "merge: 'soft' is not one of nms, weighted"),
        ({"scales": ()}, r"scales: \(\) is not a list of positive numbers"),
        ({"scales": 2}, "scales: 2 is not a list"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate_workdir(None, tmp_path, **options)
    with pytest.raises(CheckpointError):
        evaluate_workdir(None, tmp_path, flip=True)
    both = ViewOptions(flip=True)
    with pytest.raises(ConfigError, match="tile: not supported together with flip or scales"):
        with_tiles(detector.config, 48, "auto", both)
    tiled = with_tiles(detector.config, 48, 0.5, ViewOptions())
    assert (tiled.data.tile, tiled.data.tile_overlap) == (48, 0.5)
    assert with_tiles(tiled, "auto", "auto", ViewOptions()) == tiled
    with pytest.raises(ConfigError, match="tile: not supported together"):
        with_tiles(tiled, "auto", "auto", both)  # as trained
    assert with_tiles(tiled, None, "auto", both).data.tile is None


def test_tiles_that_no_image_exceeds_are_logged(detector, dataset):
    large, fitting = (with_tiles(detector.config, t, "auto", ViewOptions()) for t in (96, 95))
    (warning,) = evaluation_warnings(dataset, large)
    assert "no evaluation image is larger than a tile of 96 pixels" in warning
    assert evaluation_warnings(dataset, fitting) == []
