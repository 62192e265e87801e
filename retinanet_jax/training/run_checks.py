"""Checks before a run starts: the data has objects, a resumed run is the same, processes agree."""

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.example_sources import Source
from retinanet_jax.data.records import Categories
from retinanet_jax.metrics.federated import LVIS_DETECTIONS
from retinanet_jax.runtime.checkpoints import CheckpointError, Checkpoints
from retinanet_jax.training.run_log import RunLog
from retinanet_jax.weights.run_weights import describe

COCO_DETECTIONS = 100  # of an image; COCO's AP ignores all others (maxDets of pycocotools)


def has_objects(source: Source) -> bool:
    """Whether any image has an object that is not a crowd; stops at the first one."""
    return any(not source.annotated(index).crowd.all() for index in range(len(source)))


def check_has_objects(dataset: Dataset) -> None:
    """Raises DataError if there is nothing to learn in a training set."""
    if not has_objects(dataset.source):
        what = f"none of its {len(dataset.source)} images has an object (crowds do not count)"
        fix = "check the annotations and config.data.train_split"
        raise DataError("no objects", dataset.name, "", what, fix)


def evaluation_warnings(dataset: Dataset, config: Config) -> list[str]:
    """Returns warnings about the metrics before an evaluation, as lines for the log."""
    warnings = []
    if not has_objects(dataset.source):
        warnings.append(
            f"warning: none of the {len(dataset.source)} evaluation images of {dataset.name} has "
            "an object: AP is undefined (null in results.json)"
        )
    tile, source = config.data.tile, dataset.source
    if tile is not None and all(max(source.image_size(i)) <= tile for i in range(len(source))):
        warnings.append(
            f"warning: no evaluation image is larger than a tile of {tile} pixels: whole images "
            "are evaluated"
        )
    most = config.postprocess.max_detections
    if config.evaluation.metric == "lvis" and most < LVIS_DETECTIONS:
        warnings.append(
            f"config.postprocess.max_detections={most}: LVIS's AP uses up to {LVIS_DETECTIONS} "
            "detections per image"
        )
    if config.evaluation.metric == "open_images":
        warnings.append(
            "evaluation.metric=open_images: the verified labels of whole images are not used, so "
            "AP50 is not comparable with the challenge's"
        )
    if config.evaluation.metric == "coco" and most > COCO_DETECTIONS:
        warnings.append(
            f"config.postprocess.max_detections={most}: COCO's AP uses only the {COCO_DETECTIONS} "
            "detections with the highest scores of each image"
        )
    return warnings


def check_resumes_same_run(
    checkpoints: Checkpoints, config: Config, categories: Categories, log: RunLog
) -> bool:
    """Logs the settings that changed since the latest checkpoint; returns whether none changed.

    Raises:
        CheckpointError: the checkpoint has a different network or different classes.
    """
    before, stored = describe(checkpoints)
    check_same_classes(stored, categories, checkpoints.directory.parent)
    changes = changed_fields(before, config)
    network = [text for field, text in changes.items() if field.startswith(("model.", "anchors."))]
    if network:
        raise CheckpointError(
            f"{checkpoints.directory}: contains a run with a different network: "
            f"{'; '.join(network)}; use another --workdir, or the same settings"
        )
    if changes:
        log.message("\n".join(["resumes with changed settings:", *changes.values()]))
    return not changes


def changed_fields(before: Config, now: Config) -> dict[str, str]:
    """Maps each changed 'SECTION.FIELD' to a line with its old and new value."""
    return {
        field: f"config.{field} was {old!r} and is now {new!r}"
        for field, (old, new) in changed_values(before, now).items()
    }


def changed_values(before: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """Maps each changed 'SECTION.FIELD' to its old and new value."""
    old, new = _flat(dataclasses.asdict(before)), _flat(dataclasses.asdict(now))
    return {
        field: (old.get(field), value) for field, value in new.items() if old.get(field) != value
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            fields |= _flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = value
    return fields


def check_same_classes(stored: Categories, found: Categories, workdir: Path) -> None:
    """Raises CheckpointError if a checkpoint was trained on classes that differ from the data's."""
    if stored == found:
        return
    lost = [name for name in stored.names if name not in found.names]
    new = [name for name in found.names if name not in stored.names]
    parts = [
        f"{_few(names)} only in {where}"
        for names, where in ((lost, "the checkpoint"), (new, "the data"))
        if names
    ]
    difference = ", ".join(parts) or "the same names in a different order or with different ids"
    raise CheckpointError(
        f"{workdir}: was trained on classes that differ from the data's: {difference}; use "
        "another workdir, or the same data"
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def facts_of_run(
    config: Config, first: int, train_set: Dataset, eval_set: Dataset
) -> dict[str, Any]:
    """Returns what must be equal on all processes of a run; the paths of the data may differ."""
    facts: dict[str, Any] = {"the first step": first, "config.seed": config.seed}
    for section, fields in dataclasses.asdict(config).items():
        if isinstance(fields, dict):
            facts |= {f"config.{section}.{name}": value for name, value in fields.items()}
    for local in ("root", "cache_dir", "annotations", "mix"):
        del facts[f"config.data.{local}"]
    for use, dataset in (("training", train_set), ("evaluation", eval_set)):
        source = dataset.source
        some = np.linspace(0, len(source) - 1, min(len(source), 1000)).astype(int)
        ids = [source.image_id(int(index)) for index in some]
        facts[f"the number of {use} images"] = len(source)
        facts[f"the hash of the {use} image ids"] = zlib.crc32(np.array(ids, np.int64).tobytes())
        facts[f"the {use} classes"] = dataset.categories.names
    return facts
