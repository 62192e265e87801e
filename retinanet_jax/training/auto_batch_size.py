"""train.batch_size='auto': the largest batch that fits, by the compiler's memory plan."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, ConfigError
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.runtime.machine_memory import available_memory
from retinanet_jax.runtime.processes import from_first
from retinanet_jax.training.plan.largest_batch import MEMORY_SHARE
from retinanet_jax.training.plan.program_plan import needed_memory
from retinanet_jax.training.plan.run_programs import lower_program, run_canvases
from retinanet_jax.training.stored_choice import stored_choice

MOST = 16  # images per device; the paper's batch, and learning rates are known for it
GIB = 2**30


def with_batch_size(
    config: Config,
    train_set: Dataset,
    mesh: Mesh,
    log: Callable[[str], object],
    workdir: Path | None = None,
) -> Config:
    """Returns `config` with a number instead of train.batch_size='auto'.

    Args:
        config: configuration of the run; returned unchanged if it has a number.
        train_set: training set of the run.
        mesh: mesh of devices.
        log: function that is called with each message.
        workdir: folder of a run that resumes, whose config.json has the number. None: compute it.

    Raises:
        ConfigError: the smallest batch does not fit.
    """
    if config.train.batch_size != "auto":
        return config
    batch_size = stored_choice(workdir, "train", "batch_size")
    if batch_size is None:
        batch_size = choose_batch_size(config, train_set, mesh, log)
    train = dataclasses.replace(config.train, batch_size=batch_size)
    return dataclasses.replace(config, train=train)


def choose_batch_size(
    config: Config, train_set: Dataset, mesh: Mesh, log: Callable[[str], object]
) -> int:
    """Returns the largest batch, of at most MOST images per device, whose plan fits into memory.

    The train step is compiled for the largest canvas, with half as many images each time, until it
    fits; nothing is allocated. All processes choose the same size.
    """
    limit = memory_limit(config)
    parts = config.optimizer.accumulate_steps
    rows = max(1, MOST // parts)
    while rows:
        batch_size = rows * parts * mesh.size
        needed = planned_memory(config, train_set, mesh, batch_size)
        fits = from_first(f"batch size {batch_size}", needed <= MEMORY_SHARE * limit)
        log(
            f"batch size {batch_size}: the train step needs {needed / GIB:.3g} GiB per device, "
            f"{'within' if fits else 'more than'} {MEMORY_SHARE:.0%} of {limit / GIB:.3g} GiB "
            "(config.train.batch_size=auto)"
        )
        if fits:
            return batch_size
        rows //= 2
    raise ConfigError(
        f"config.train.batch_size: 'auto' found no batch size that fits: {batch_size} images need "
        f"{needed / GIB:.2f} GiB per device, more than {MEMORY_SHARE:.0%} of {limit / GIB:.2f} "
        "GiB; use smaller images (config.pipeline.min_side and max_side), "
        "config.model.dtype=bfloat16 or config.model.remat=all"
    )


def memory_limit(config: Config) -> float:
    """Returns the bytes per device: config.train.memory_limit, or what device or machine have."""
    if config.train.memory_limit != "auto":
        return config.train.memory_limit * GIB
    devices = jax.local_devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    if all(limits):
        return min(limits)
    return available_memory() / len(devices)  # on CPUs, which share that of the machine


def planned_memory(config: Config, train_set: Dataset, mesh: Mesh, batch_size: int) -> int:
    """Returns the bytes per device that the train step needs for the run's largest canvas."""
    canvas = run_canvases(config, "train", train_set)[-1]
    classes = train_set.categories.num_classes
    lowered = lower_program("train", config, classes, mesh, canvas, batch_size)
    return needed_memory(lowered.compile())
