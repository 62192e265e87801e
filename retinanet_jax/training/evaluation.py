"""Average precision of a predict function on a dataset."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config import sections
from retinanet_jax.config.settings import Config
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.example_sources import Slice
from retinanet_jax.data.ground_truth import restrict
from retinanet_jax.data.records import Categories
from retinanet_jax.data.store.voc_source import voc_objects
from retinanet_jax.inference.test_time_augmentation import ONE_VIEW, ViewOptions
from retinanet_jax.metrics.coco import (
    UNDEFINED,
    CocoMetrics,
    coco_average_precision,
    to_coco_results,
)
from retinanet_jax.metrics.federated import (
    lvis_average_precision,
    open_images_average_precision,
)
from retinanet_jax.metrics.voc import VocDetections, VocObjects, voc_average_precision
from retinanet_jax.training.detect_dataset import detect_dataset
from retinanet_jax.training.measured_on import measured_on


class Evaluation(NamedTuple):
    """The result of an evaluation.

    Attributes:
        summary: metrics by name: COCO's twelve metrics, AP_11point and AP_allpoint for VOC, or
            those of another value of evaluation.metric. None if a metric is undefined, because the
            dataset has no object that it counts.
        per_class: AP by class name, None where undefined.
        results: the detections in COCO's results format.
        losses: loss, class_loss and box_loss of the images as one batch; None if not computed.
        losses_by_level: the part of each level ('P3', ...) in the loss; None if not computed.
        losses_by_class: by class name, the part of the anchors of its objects in the loss; the
            remainder belongs to the background. None if not computed.
        detection: the flip, scales, merge, tile and overlap of the detections.
        measured: the data and the metric; see measured_on.py.
    """

    summary: dict[str, float | None]
    per_class: dict[str, float | None]
    results: list[dict]
    losses: dict[str, float] | None = None
    losses_by_level: dict[str, float] | None = None
    losses_by_class: dict[str, float] | None = None
    detection: dict[str, Any] | None = None
    measured: dict[str, Any] | None = None

    def scalars(self) -> dict[str, float | None]:
        """Metrics and losses by name."""
        return self.summary | (self.losses or {})


def evaluate(
    predict_fn: Callable[..., Detections],
    variables: Any,
    dataset: Dataset,
    config: Config,
    mesh: Mesh,
    *,
    options: ViewOptions = ONE_VIEW,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Detects on every image of `dataset` and scores the detections.

    With config.data.tile, it detects in the tiles and in the whole image, and merges the detections
    like Detector(tile=...).

    Args:
        predict_fn: compiled function from `make_predict_fn`.
        variables: variables of the model on the devices of `mesh`, whole or divided.
        dataset: dataset to evaluate on; all of its images count, with or without detections.
        config: configuration, of which the sections data, evaluation, pipeline and postprocess are
            read.
        mesh: mesh of the devices over which batches are split.
        options: test-time augmentation, and how boxes of tiles or views are merged.
        on_batch: function that is called after each batch with the number of images done and the
            total; an image counts once per view.

    Raises:
        ConfigError: tiles together with test-time augmentation.
    """
    found = detect_dataset(predict_fn, variables, dataset, config, mesh, options, on_batch=on_batch)
    results: list[dict] = []
    for image_id, rows in found:
        parts = (np.asarray(part)[np.asarray(rows.valid)] for part in rows[:3])
        results += to_coco_results(image_id, *parts, dataset.categories)
    data = config.data
    words = options._asdict() | {"tile": data.tile, "overlap": data.tile_overlap}
    return score(results, dataset, config)._replace(detection=words)


def subsample(dataset: Dataset, max_images: int | None) -> Dataset:
    """Returns the dataset, or `max_images` evenly spread images if it has more."""
    total = len(dataset.source)
    every = 1 if max_images is None else -(-total // max_images)
    if every <= 1:
        return dataset
    source = Slice(dataset.source, range(0, total, every))
    truth = functools.cache(lambda: restrict(dataset.ground_truth(), source, dataset.name))
    return dataclasses.replace(dataset, source=source, ground_truth=truth)


def score(results: list[dict], dataset: Dataset, config: Config) -> Evaluation:
    """Computes the metrics of detections in COCO's results format."""
    summary, per_class = METRICS[config.evaluation.metric](results, dataset, config)
    found = Evaluation(_defined(summary), _defined(per_class), results)
    return found._replace(measured=measured_on(dataset, config))


def _defined(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}


def _coco_metrics(results: list[dict], dataset: Dataset, config: Config) -> tuple[dict, dict]:
    truth, backend = dataset.ground_truth(), config.evaluation.backend
    return _without_marks(coco_average_precision(truth, results, backend=backend))


def _without_marks(metrics: CocoMetrics) -> tuple[dict, dict]:
    """NaN for COCO's mark of what is undefined, -1; metrics of others may be negative."""
    summary, per_class = (
        {name: math.nan if value == UNDEFINED else value for name, value in numbers.items()}
        for numbers in metrics
    )
    return summary, per_class


def _voc_metrics(results: list[dict], dataset: Dataset, config: Config) -> tuple[dict, dict]:
    truth = voc_objects(dataset.ground_truth(), dataset.categories)
    found = {
        image_id: VocDetections(*detection_arrays([], dataset.categories)) for image_id in truth
    }
    for image_id, image_results in results_by_image(results).items():
        found[image_id] = VocDetections(*detection_arrays(image_results, dataset.categories))
    metrics = voc_average_precision(
        [VocObjects(*truth[image_id]) for image_id in truth],
        [found[image_id] for image_id in truth],
        dataset.categories.num_classes,
        # The reader has already turned VOC's 1-based inclusive corners into edges.
        inclusive_corners=False,
        names=dataset.categories.names,
    )
    summary = {name: metrics[name] for name in ("AP_11point", "AP_allpoint")}
    return summary, metrics["per_class_11point"]


Metric = Callable[[list[dict], Dataset, Config], tuple[dict[str, float], dict[str, float]]]
METRICS: dict[str, Metric] = {
    "coco": _coco_metrics,
    "voc": _voc_metrics,
    "lvis": lambda found, data, _: _without_marks(
        lvis_average_precision(data.ground_truth(), found)
    ),
    "open_images": lambda found, data, _: _without_marks(
        open_images_average_precision(data.ground_truth(), found)
    ),
}


def add_metric(name: str, metric: Metric) -> None:
    """Registers a value of `evaluation.metric`.

    Args:
        name: name of the metric.
        metric: function of (detections in COCO's results format, Dataset, Config) that returns
            numbers by name and numbers by class. The first number, for which higher is better,
            determines the best checkpoint. NaN and infinities are undefined.
    """
    if name not in sections.METRICS:
        sections.METRICS.append(name)
    METRICS[name] = metric


def results_by_image(results: list[dict]) -> dict[int, list[dict]]:
    """Groups results by their image id."""
    by_image: dict[int, list[dict]] = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result)
    return by_image


def detection_arrays(results: list[dict], categories: Categories) -> tuple[np.ndarray, ...]:
    """Returns the boxes xyxy [d 4], scores [d] and labels [d] of one image's results."""
    boxes = np.array([result["bbox"] for result in results], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([result["score"] for result in results], np.float32)
    labels = [categories.label_of(result["category_id"]) for result in results]
    return boxes, scores, np.array(labels, np.int32)
