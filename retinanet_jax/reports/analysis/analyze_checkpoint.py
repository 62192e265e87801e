"""Evaluates a checkpoint and computes all numbers of the analysis page."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from retinanet_jax.config.settings import Config, check_batch_size
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import Dataset, load_dataset
from retinanet_jax.data.records import Categories
from retinanet_jax.reports.analysis.calibration import Calibration, calibrate
from retinanet_jax.reports.analysis.confusion_matrix import confusion_matrix
from retinanet_jax.reports.analysis.detection_outcomes import (
    AREAS,
    COCO_IOUS,
    Outcomes,
    class_outcomes,
    read_tables,
)
from retinanet_jax.reports.analysis.error_curves import error_curves, find_similar
from retinanet_jax.reports.analysis.level_losses import LossStatistics, PredictAndRecord
from retinanet_jax.reports.analysis.precision_curves import precision_curves
from retinanet_jax.runtime.mesh import make_mesh, replicated
from retinanet_jax.training.config_of_evaluation import OF_WEIGHTS, config_of_evaluation
from retinanet_jax.training.evaluation import evaluate, subsample
from retinanet_jax.training.run_checks import check_same_classes
from retinanet_jax.weights.run_weights import choose_checkpoint, describe, read_variables


@dataclasses.dataclass(frozen=True)
class Analysis:
    """The numbers of a checkpoint on a dataset. "Per class" means in the order of the labels.

    Attributes:
      run: name of the workdir.
      step: step of the checkpoint.
      dataset: name of the dataset.
      images, total: number of images analyzed, and in the split.
      names: names of the classes.
      config: configuration of the analysis.
      summary: COCO's twelve numbers; None where undefined.
      loss: parts of the loss by level, and the histograms of the logits.
      detections: number of detections.
      objects: per class, number of objects to find.
      precision: per class and IoU (COCO_IOUS), at COCO's 101 recalls.
      errors: by size of the objects (AREAS), per class the seven error_curves.CURVES.
      has_similar: whether classes share supercategories. If not, the curve Sim equals Loc.
      calibration: calibration of all detections, at an IoU of .5.
      class_calibration: the same for each class.
      confusion: see `confusion_matrix`; of detections from evaluation.example_min_score on.
    """

    run: str
    step: int
    dataset: str
    images: int
    total: int
    names: tuple[str, ...]
    config: Config
    summary: dict[str, float | None]
    loss: LossStatistics
    detections: int
    objects: tuple[int, ...]
    precision: Float[np.ndarray, "k 10 101"]
    errors: dict[str, Float[np.ndarray, "k 7 101"]]
    has_similar: bool
    calibration: Calibration
    class_calibration: tuple[Calibration, ...]
    confusion: Int[np.ndarray, "k1 k1"]


def analyze_workdir(
    workdir: Path,
    config: Config | Mapping[str, Any] | None = None,
    step: int | None = None,
    *,
    max_images: int = 5000,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Analysis:
    """Analyzes a checkpoint of a run.

    Args:
      workdir: folder of the run. Nothing is written to it.
      config: for the data (its eval_split) and the thresholds, or changes to those of the
        checkpoint, as for `evaluate_workdir`. Network, matching and loss are the checkpoint's.
      step: step of the checkpoint. None: the best, or the latest if none was evaluated.
      max_images: maximum number of images to analyze, evenly spread.
      on_batch: called with the number of images done and of all images.

    Raises:
      CheckpointError: no such checkpoint, or its classes differ from those of the data.
      DataError: the data are missing or invalid, or have no objects.
    """
    mesh = make_mesh()
    checkpoints, step, _ = choose_checkpoint(Path(workdir), step)
    stored, categories = describe(checkpoints, step)
    config = analysis_config(stored, config)
    check_batch_size(config.evaluation.batch_size, mesh.size, "config.evaluation.batch_size")
    dataset = load_dataset(config.data, config.data.eval_split)
    check_same_classes(categories, dataset.categories, Path(workdir))
    total, dataset = len(dataset.source), subsample(dataset, max_images)
    check_has_objects(dataset)
    model = build_model(config.model, categories.num_classes, config.anchors.anchors_per_location)
    variables = jax.device_put(read_variables(checkpoints, step), replicated(mesh))
    predict_fn = PredictAndRecord(model, config)
    found = evaluate(predict_fn, variables, dataset, config, mesh, on_batch=on_batch)
    return Analysis(
        run=Path(workdir).resolve().name,
        step=step,
        dataset=dataset.name,
        images=len(dataset.source),
        total=total,
        config=config,
        summary=found.summary,
        loss=predict_fn.total(),
        **analyze_detections(
            found.results, dataset.ground_truth(), categories, config.evaluation.example_min_score
        ),
    )


def analysis_config(stored: Config, given: Config | Mapping[str, Any] | None) -> Config:
    """The config with the network, the matching and the loss of a checkpoint, and COCO's metric.

    All numbers of the analysis follow COCO's rules, also for VOC.
    """
    config = config_of_evaluation(stored, given, (*OF_WEIGHTS, "matching", "loss"))
    scored = dataclasses.replace(config.evaluation, metric="coco")
    return dataclasses.replace(config, evaluation=scored)


def check_has_objects(dataset: Dataset) -> None:
    """Raises DataError if the dataset has no objects."""
    if any(not a.get("iscrowd") for a in dataset.ground_truth()["annotations"]):
        return
    what = f"no objects in its {len(dataset.source)} images, so there is nothing to analyze"
    fix = "set data.eval_split to a split with annotations, or data.annotations to its file"
    raise DataError("ground truth", dataset.name, "", what, fix)


def analyze_detections(
    results: list[dict], content: dict[str, Any], categories: Categories, score: float | int
) -> dict[str, Any]:
    """The fields of Analysis that depend on detections and objects alone.

    Args:
      results: detections in COCO's results format.
      content: COCO's instances JSON.
      score: lowest score in the confusion matrix.
    """
    tables = read_tables(content, results, categories)
    labels = range(categories.num_classes)
    outcomes = [class_outcomes(*tables, label, COCO_IOUS) for label in labels]
    similar = find_similar(content, categories)
    return {
        "names": categories.names,
        "detections": len(results),
        "objects": tuple(found.num_objects for found in outcomes),
        "precision": np.array([precision_curves(found) for found in outcomes]),
        "errors": {area: error_curves(*tables, similar, area) for area in AREAS},
        "has_similar": any(similar),
        "calibration": _calibrate(outcomes),
        "class_calibration": tuple(_calibrate([found]) for found in outcomes),
        "confusion": confusion_matrix(*tables, len(labels), score=score),
    }


def _calibrate(outcomes: list[Outcomes]) -> Calibration:
    """Calibration of the detections of some classes at the first of COCO_IOUS, .5."""
    scores = np.concatenate([found.scores[found.counted[0]] for found in outcomes])
    correct = np.concatenate([found.correct[0][found.counted[0]] for found in outcomes])
    return calibrate(scores, correct)
