"""pipeline.max_boxes='auto': batches have room for all objects of every training image."""

import dataclasses
from pathlib import Path

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.object_table import read_objects
from retinanet_jax.training.stored_choice import stored_choice

LEAST = 100


def with_max_boxes(config: Config, train_set: Dataset, workdir: Path | None = None) -> Config:
    """Returns `config` with a number instead of pipeline.max_boxes='auto'.

    The number is the largest number of objects in a training image, and at least LEAST.

    Args:
        config: configuration of the run; returned unchanged if it has a number.
        train_set: training set of the run; the annotations of all images are read.
        workdir: folder of a run that resumes, whose config.json has the number. None: compute it.
    """
    if config.pipeline.max_boxes != "auto":
        return config
    number = stored_choice(workdir, "pipeline", "max_boxes")
    if number is None:
        images = read_objects(train_set.source, len(train_set.source)).image
        number = max(LEAST, int(np.bincount(images).max(initial=0)))
    return _with_number(config, number)


def with_least_max_boxes(config: Config) -> Config:
    """Returns `config` with LEAST instead of 'auto', for a plan without the data."""
    return _with_number(config, LEAST) if config.pipeline.max_boxes == "auto" else config


def _with_number(config: Config, number: int) -> Config:
    pipeline = dataclasses.replace(config.pipeline, max_boxes=number)
    return dataclasses.replace(config, pipeline=pipeline)
