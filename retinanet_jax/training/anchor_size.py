"""anchors.size='auto': as large as the boxes of the training set allow.

Larger anchors put an object on a finer level, with more anchors that fit it better. On photographs
with large objects, twice the size gave more AP at the same cost; experiments/README.md has figures.
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
    """`config` with a number in place of anchors.size='auto', and a line for the log.

    The largest of SIZES with which at most UNCOVERED_SHARE of the training boxes have no anchor
    with an IoU of matching.negative_iou; if there is none, the size with the fewest such boxes. For
    assigners other than 'iou' this is a rule of thumb.

    Args:
        config: of the run; with a number it comes back unchanged, with an empty line.
        train_set: of the run.
        workdir: of a run that resumes: its config.json has the number. None: computed.
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
    """`config` with the paper's size in place of 'auto', for a plan: it changes no shape."""
    return _with_size(config, SIZES[0]) if config.anchors.size == "auto" else config


def choose_anchor_size(config: Config, train_set: Dataset) -> tuple[float, float]:
    """The size, and the share of boxes without an anchor, on START_SAMPLE evenly spread images."""
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
