"""Records what an evaluation measured; runtime/measurement.py compares the records."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.data.dataset import Dataset


def measured_on(dataset: Dataset, config: Config) -> dict[str, Any]:
    """Returns the data and the metric of an evaluation.

    `digest` depends on images, boxes and classes, so a copy of a dataset in another folder has the
    same one; `dataset` is for a person.
    """
    return {
        "dataset": dataset.name,
        "split": dataset.split,
        "images": len(dataset.source),
        "digest": _digest(dataset.ground_truth()),
        "metric": config.evaluation.metric,
    }


def _digest(truth: Mapping[str, Any]) -> str:
    """A hash of COCO's instances JSON that does not depend on the order of its entries."""
    images = [(image["id"], image["height"], image["width"]) for image in truth["images"]]
    objects = [
        (a["image_id"], a["category_id"], a.get("iscrowd", 0), *a["bbox"])
        for a in truth["annotations"]
    ]
    digest = hashlib.blake2b(digest_size=8)
    for rows, columns in ((images, 3), (objects, 7)):
        table = np.array(rows, np.float64).reshape(-1, columns).round(2)
        digest.update(table[np.lexsort(table.T)].tobytes())
    digest.update(repr([category["name"] for category in truth["categories"]]).encode())
    return digest.hexdigest()
