"""Contestant of evaluation.py: average precision by one backend."""

import sys

import numpy as np

from benchmarks.contestants import serve, time_calls
from retinanet_jax.metrics.coco import coco_average_precision

CLASSES, SIZE = 80, 640


def random_results(num_images: int) -> tuple[dict, list[dict]]:
    """Ground truth and results; about one result in fourteen is an object with a shifted box."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image_id in range(1, num_images + 1):
        count = 1 + rng.poisson(6)
        labels, boxes = rng.integers(1, CLASSES + 1, count), random_boxes(rng, count)
        for label, box in zip(labels.tolist(), boxes.tolist(), strict=True):
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label}
            area = box[2] * box[3]
            annotations.append({**annotation, "bbox": box, "area": area, "iscrowd": 0})
        found = np.concatenate([boxes + rng.normal(0, 4, boxes.shape), random_boxes(rng, 100)])
        found_labels = np.concatenate([labels, rng.integers(1, CLASSES + 1, 100)])
        scores = np.concatenate([rng.beta(4, 2, count), rng.beta(1, 6, 100)])
        results += [
            {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            for label, box, score in zip(
                found_labels[:100].tolist(),
                found[:100].tolist(),
                scores[:100].tolist(),
                strict=True,
            )
        ]
    images = [{"id": i, "width": SIZE, "height": SIZE} for i in range(1, num_images + 1)]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes x, y, width, height [n 4] in all of COCO's size ranges."""
    sides = np.exp(rng.uniform(np.log(12), np.log(300), (count, 2)))
    return np.concatenate([rng.uniform(0, 1, (count, 2)) * (SIZE - sides), sides], axis=1)


if __name__ == "__main__":
    backend, num_images = sys.argv[1], int(sys.argv[2])
    truth, results = random_results(num_images)
    found: list[dict[str, float]] = []

    def score() -> None:
        found[:] = [coco_average_precision(truth, results, backend=backend).summary]

    serve(lambda: time_calls(score) | {"result": list(found[0].values())})
