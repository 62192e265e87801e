"""Writes the results of an evaluation to the workdir: metrics, detections, example images."""

import json

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.inference.drawing import Objects, detection_grid
from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.training.evaluation import Evaluation, detection_arrays, results_by_image
from retinanet_jax.training.run_log import RunLog

MAX_CLASSES = 100  # in the table of classes; of more, the ones with the lowest AP
SHOWN_CLASSES = 20


def write_evaluation(
    found: Evaluation,
    dataset: Dataset,
    config: Config,
    log: RunLog,
    step: int,
    *,
    tables: bool,
    kind: str = "eval",
) -> None:
    """Logs metrics; writes detections.json, results.json and an image of examples.

    With `tables`, all metrics are logged, also by class; without it, one line has three metrics and
    the loss. `kind` is the kind of the line in metrics.jsonl.
    """
    by_level = {f"loss_{name}": loss for name, loss in (found.losses_by_level or {}).items()}
    log.scalars(step, kind, found.scalars() | by_level, found.measured)
    if tables:
        log.table(f"step {step}, {dataset.name}", found.scalars())
        log.table(*class_table(found.per_class))
    else:
        shown = [*list(found.summary.items())[:3], *list((found.losses or {}).items())[:1]]
        values = (f"{name} {'-' if x is None else f'{x:.4f}'}" for name, x in shown)
        log.message(f"step {step}: {', '.join(values)}")
    image = draw_examples(found.results, dataset, config)
    if image is not None:
        log.message(f"ground truth and detections: {log.image(step, 'detections', image)}")
    if log.active:
        write_whole(log.workdir / "detections.json", json.dumps(found.results))
        results = {"step": step, "summary": found.summary, "per_class": found.per_class}
        results |= {"detection": found.detection, "measured": found.measured}
        if found.losses is not None:
            results["losses"] = found.losses
            results["losses_by_level"] = found.losses_by_level
            results["losses_by_class"] = found.losses_by_class
        write_whole(log.workdir / "results.json", json.dumps(results, indent=2))


def class_table(per_class: dict[str, float | None]) -> tuple[str, dict[str, float | None]]:
    """Returns the title and rows of the table of AP by class, with at most MAX_CLASSES rows."""
    if len(per_class) <= MAX_CLASSES:
        return "AP by class", per_class
    defined = [(value, name) for name, value in per_class.items() if value is not None]
    lowest = {name: value for value, name in sorted(defined)[:SHOWN_CLASSES]}
    return f"lowest AP by class; results.json has all {len(per_class):,} classes", lowest


def draw_examples(results: list[dict], dataset: Dataset, config: Config) -> np.ndarray | None:
    """Draws some images of the dataset with ground truth and detections, as one image [h w 3].

    Detections below config.evaluation.example_min_score are left out. Returns None if
    config.evaluation.example_images is 0.
    """
    count = min(config.evaluation.example_images, len(dataset.source))
    if not count:
        return None
    shown = [r for r in results if r["score"] >= config.evaluation.example_min_score]
    by_image, rows = results_by_image(shown), []
    for index in np.linspace(0, len(dataset.source) - 1, count).astype(int):
        example = dataset.source[int(index)]
        boxes, scores, labels = detection_arrays(
            by_image.get(example.image_id, []), dataset.categories
        )
        rows.append((example.image, example, Objects(boxes, labels, scores)))
    return detection_grid(rows, dataset.categories.names)
