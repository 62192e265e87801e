"""anchors.size='auto': the largest anchors that fit the boxes of the training set.

Larger anchors match an object on a finer level, which has more and better fitting anchors. On
photographs with large objects, twice the size gave a higher AP at the same cost;
experiments/README.md has the numbers.
"""

import dataclasses
from pathlib import Path

from retinanet_jax.config.settings import Config
from retinanet_jax.data.anchor_coverage import object_coverage
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.object_table import read_objects
from retinanet_jax.training.data_findings import START_SAMPLE
from retinanet_jax.training.stored_choice import stored_choice

SIZES = (4.0, 3.0, 2.0)  # in strides; the first is the paper's
UNCOVERED_SHARE = 0.01


def with_anchor_size(
    config: Config, train_set: Dataset, workdir: Path | None = None
) -> tuple[Config, str]:
    """Returns `config` with a number instead of anchors.size='auto', and a line for the log.

    Chooses the largest of SIZES for which at most UNCOVERED_SHARE of the training boxes have no
    anchor with an IoU of matching.negative_iou; if no size qualifies, the one with the fewest such
    boxes. For assigners other than 'iou', this is a rule of thumb.

    Args:
        config: configuration of the run; returned as it is, with an empty line, if it has a number.
        train_set: training set of the run.
        workdir: folder of a run that resumes, whose config.json has the number. None: compute it.
    """
    if config.anchors.size != "auto":
        return config, ""
    size = stored_choice(workdir, "anchors", "size")
    if size is not None:
        return _with_size(config, size), ""
    size, left = choose_anchor_size(config, train_set)
    return _with_size(config, size), (
        f"anchors of {size:g} strides: {left:.1%} of the training boxes have no anchor with an IoU "
        f"of at least {config.matching.negative_iou:g} (config.anchors.size=auto)"
    )


def with_any_anchor_size(config: Config) -> Config:
    """Returns `config` with the paper's size for 'auto', for a plan: it changes no shape."""
    return _with_size(config, SIZES[0]) if config.anchors.size == "auto" else config


def choose_anchor_size(config: Config, train_set: Dataset) -> tuple[float, float]:
    """Returns the size and its share of uncovered boxes, on START_SAMPLE evenly spread images."""
    objects = read_objects(train_set.source, START_SAMPLE)
    objects = objects.select(~objects.crowd)
    left = {}
    for size in SIZES:
        coverage = object_coverage(objects, config.pipeline, _with_size(config, size).anchors)
        uncovered = coverage.uncovered(config.matching)
        left[size] = float(uncovered.mean()) if len(uncovered) else 0.0
        if left[size] <= UNCOVERED_SHARE:
            return size, left[size]
    best = min(SIZES, key=left.__getitem__)
    return best, left[best]


def _with_size(config: Config, size: float) -> Config:
    return dataclasses.replace(config, anchors=dataclasses.replace(config.anchors, size=size))
