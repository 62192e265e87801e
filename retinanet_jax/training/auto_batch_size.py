"""train.batch_size='auto': as large as the memory plan of the compiler allows."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, ConfigError, read_config_file
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.data.pipeline.augmentation_config import with_largest_scale
from retinanet_jax.data.pipeline.batch import padding_batch
from retinanet_jax.data.pipeline.canvas import canvases
from retinanet_jax.runtime.machine_memory import available_memory
from retinanet_jax.runtime.mesh import replicated, split_over_data
from retinanet_jax.runtime.processes import from_first
from retinanet_jax.training.setup import compile_functions
from retinanet_jax.training.step import focal_params

MOST = 16  # images per device; the paper's batch, and learning rates are known for it
SHARE = 0.9  # of the memory; the rest is for batches that wait and for the evaluation
GIB = 2**30


def with_batch_size(
    config: Config,
    num_classes: int,
    mesh: Mesh,
    log: Callable[[str], object],
    workdir: Path | None = None,
) -> Config:
    """`config` with a number in place of train.batch_size='auto'.

    Args:
        config: of the run; with a number it comes back unchanged.
        num_classes: of the training set.
        mesh: of devices.
        log: called with messages.
        workdir: of a run that resumes: its config.json has the number. None: computed.

    Raises:
        ConfigError: the smallest batch does not fit.
    """
    if config.train.batch_size != "auto":
        return config
    batch_size = stored_batch_size(workdir) if workdir is not None else None
    if batch_size is None:
        batch_size = choose_batch_size(config, num_classes, mesh, log)
    train = dataclasses.replace(config.train, batch_size=batch_size)
    return dataclasses.replace(config, train=train)


def stored_batch_size(workdir: Path) -> int | None:
    """The batch size in WORKDIR/config.json; None where there is none."""
    path, stored = workdir / "config.json", None
    if path.exists():
        stored = read_config_file(path).train.batch_size
    return from_first("batch size", None if stored == "auto" else stored)


def choose_batch_size(
    config: Config, num_classes: int, mesh: Mesh, log: Callable[[str], object]
) -> int:
    """The largest batch, of at most MOST images per device, whose plan fits into the memory.

    The train step is compiled for the largest canvas with half as many images until it fits;
    nothing is allocated. All processes choose the same.
    """
    limit = memory_limit(config)
    parts = config.optimizer.accumulate_steps
    rows = max(1, MOST // parts)
    while rows:
        batch_size = rows * parts * mesh.size
        needed = planned_memory(config, num_classes, mesh, batch_size)
        fits = from_first(f"batch size {batch_size}", needed <= SHARE * limit)
        log(
            f"batch size {batch_size}: the train step needs {needed / GIB:.3g} GiB per device, "
            f"{'within' if fits else 'more than'} {SHARE:.0%} of {limit / GIB:.3g} GiB "
            "(config.train.batch_size=auto)"
        )
        if fits:
            return batch_size
        rows //= 2
    raise ConfigError(
        f"config.train.batch_size: 'auto', but {batch_size} images need {needed / GIB:.2f} GiB per "
        f"device of {SHARE:.0%} of {limit / GIB:.2f} GiB; set smaller images "
        "(config.pipeline.min_side and max_side), config.model.dtype=bfloat16 or "
        "config.model.remat=all"
    )


def memory_limit(config: Config) -> float:
    """Bytes of each device: config.train.memory_limit, or what the device or the machine has."""
    if config.train.memory_limit != "auto":
        return config.train.memory_limit * GIB
    devices = jax.local_devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    if all(limits):
        return min(limits)
    return available_memory() / len(devices)  # on CPUs, which share that of the machine


def planned_memory(config: Config, num_classes: int, mesh: Mesh, batch_size: int) -> int:
    """Bytes per device that the compiled train step needs for the largest canvas."""
    train = dataclasses.replace(config.train, batch_size=batch_size)
    config = dataclasses.replace(config, train=train)
    functions = compile_functions(config, num_classes, mesh)
    canvas = canvases(with_largest_scale(config.pipeline, config.augmentation))[-1]
    augmentation = config.augmentation
    marks = {"flips": augmentation.flip, "colors": augmentation.changes_colors()}
    batch = padding_batch(canvas, config.pipeline.max_boxes, batch_size, **marks).batch
    rows, whole = split_over_data(mesh), replicated(mesh)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), batch)
    focal = _shapes(config.loss, whole)
    plan = functions.step_fn.lower(functions.state_shapes, shapes, focal, np.float32(0)).compile()
    memory = plan.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
        - memory.alias_size_in_bytes
    )


def _shapes(loss: LossConfig, sharding: jax.sharding.Sharding):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), focal_params(loss)
    )
