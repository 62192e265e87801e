"""Evaluation of a predict function on a dataset: average precision, files, images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.pipeline.batches import eval_batches
from retinanet_jax.data.records import Categories
from retinanet_jax.data.store.voc_release import voc_objects
from retinanet_jax.inference.drawing import Objects, detection_grid
from retinanet_jax.metrics.coco import coco_average_precision, to_coco_results
from retinanet_jax.metrics.voc import VocDetections, VocObjects, voc_average_precision
from retinanet_jax.runtime.mesh import fetch, for_this_process, gathered, prefetch_to_device


class Evaluation(NamedTuple):
    """What an evaluation found.

    summary: COCO's twelve numbers, or for VOC AP_11point and AP_allpoint, by name.
    per_class: AP by class name.
    results: the detections in COCO's results format.
    """

    summary: dict[str, float]
    per_class: dict[str, float]
    results: list[dict]


def evaluate(
    predict_fn: Callable[..., Detections],
    variables: Any,
    dataset: Dataset,
    config: Config,
    mesh: Mesh,
    *,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Detects on every image of `dataset` and scores the detections.

    Args:
        predict_fn: from `make_predict_fn`.
        variables: of the model, on the devices of `mesh`, whole or divided.
        dataset: its ground truth counts all of its images, found objects or not.
        config: sections evaluation and pipeline are read.
        mesh: over which the batches are split.
        on_batch: called with the images done and the images in all.
    """
    settings = for_this_process(config.pipeline)
    host_batches = eval_batches(dataset, batch_size=config.evaluation.batch_size, settings=settings)
    # Ids have 64 bits and devices 32: they travel as pairs.
    batches = prefetch_to_device(
        iter(host_batches),
        lambda host: (host.batch, host.image_ids.view(np.int32).reshape(-1, 2)),
        mesh,
    )
    # Once, and not for every batch.
    variables = gathered(variables, mesh)
    results: list[dict] = []
    total, done, pending = len(dataset.source), 0, None
    for batch, ids in batches:
        running = predict_fn(variables, batch), batch.valid, ids
        # The host works on the batch before while the devices have this one.
        if pending is not None:
            results += _to_results(*fetch(pending), dataset)
        pending = running
        done += config.evaluation.batch_size
        on_batch(min(done, total), total)
    if pending is not None:
        results += _to_results(*fetch(pending), dataset)
    return score(results, dataset, config)


def _to_results(
    found: Detections, valid: np.ndarray, ids: np.ndarray, dataset: Dataset
) -> list[dict]:
    """The detections of one batch in COCO's results format."""
    image_ids = np.ascontiguousarray(ids).view(np.int64)[:, 0]
    results = []
    for row in np.flatnonzero(valid):
        boxes, scores, labels = (x[row][found.valid[row]] for x in found[:3])
        results += to_coco_results(int(image_ids[row]), boxes, scores, labels, dataset.categories)
    return results


def score(results: list[dict], dataset: Dataset, config: Config) -> Evaluation:
    """Average precision of detections in COCO's results format."""
    if config.evaluation.metric == "coco":
        metrics = coco_average_precision(
            dataset.ground_truth(), results, backend=config.evaluation.backend
        )
        return Evaluation(metrics.summary, metrics.per_class, results)
    return Evaluation(*_voc_metrics(results, dataset), results)


def _voc_metrics(results: list[dict], dataset: Dataset) -> tuple[dict, dict]:
    truth = voc_objects(dataset.ground_truth(), dataset.categories)
    found = {image_id: VocDetections(*_arrays([], dataset.categories)) for image_id in truth}
    for image_id, image_results in _by_image(results).items():
        found[image_id] = VocDetections(*_arrays(image_results, dataset.categories))
    metrics = voc_average_precision(
        [VocObjects(*truth[image_id]) for image_id in truth],
        [found[image_id] for image_id in truth],
        dataset.categories.num_classes,
        # The reader has turned VOC's 1-based inclusive corners into edges already.
        inclusive_corners=False,
        names=dataset.categories.names,
    )
    summary = {name: metrics[name] for name in ("AP_11point", "AP_allpoint")}
    return summary, metrics["per_class_11point"]


def _by_image(results: list[dict]) -> dict[int, list[dict]]:
    by_image: dict[int, list[dict]] = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result)
    return by_image


def _arrays(results: list[dict], categories: Categories) -> tuple[np.ndarray, ...]:
    """Boxes xyxy [d 4], scores [d] and labels [d] of one image's results."""
    boxes = np.array([result["bbox"] for result in results], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([result["score"] for result in results], np.float32)
    labels = [categories.label_of(result["category_id"]) for result in results]
    return boxes, scores, np.array(labels, np.int32)


def draw_examples(results: list[dict], dataset: Dataset, config: Config) -> np.ndarray | None:
    """An image [h w 3] of some images, spread over the dataset: ground truth beside detections.

    Detections below config.evaluation.example_min_score are left out. None where no images are
    wanted.
    """
    count = min(config.evaluation.example_images, len(dataset.source))
    if not count:
        return None
    shown = [r for r in results if r["score"] >= config.evaluation.example_min_score]
    by_image, rows = _by_image(shown), []
    for index in np.linspace(0, len(dataset.source) - 1, count).astype(int):
        example = dataset.source[int(index)]
        boxes, scores, labels = _arrays(by_image.get(example.image_id, []), dataset.categories)
        rows.append((example.image, example, Objects(boxes, labels, scores)))
    return detection_grid(rows, dataset.categories.names)
