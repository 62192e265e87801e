"""Contestant of infer, train, gpu and tpu: this package's compiled functions."""

import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import inputs
from benchmarks.contestants import serve
from retinanet_jax.config.recipes import with_recipe
from retinanet_jax.config.settings import Config, default_config, from_config_dict
from retinanet_jax.core.retinanet import RetinaNet, build_model
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.predict import make_predict_fn, run_network
from retinanet_jax.runtime.mesh import make_mesh, to_devices
from retinanet_jax.training.plan.chips import chip_of_device
from retinanet_jax.training.plan.program_plan import read_plan
from retinanet_jax.training.setup import make_setup

CATEGORIES = Categories(tuple(f"class {i}" for i in range(80)), tuple(range(1, 81)))


def configured(dtype: str, backbone: str, remat: str = "none") -> Config:
    """torchvision's conventions, random weights.

    Norms, stem and res2 are frozen, which a config allows only with pretrained weights.
    """
    free = {"model.frozen_stages": 0, "model.norm": "batch", "model.remat": remat}
    tree = with_recipe(default_config(), "torchvision_v1")
    tree.update_from_flattened_dict({**free, "model.dtype": dtype, "model.backbone": backbone})
    config = from_config_dict(tree)
    frozen = dataclasses.replace(config.model, frozen_stages=2, norm="frozen_batch")
    return dataclasses.replace(config, model=frozen)


def random_batch(height: int, width: int, batch: int) -> Batch:
    images, boxes, labels = inputs.images(height, width, batch)
    sizes = np.tile(np.float32([height, width]), (batch, 1))
    crowd, valid = np.zeros(labels.shape, bool), np.ones(batch, bool)
    return Batch(images, sizes, sizes, boxes, labels, crowd, valid)


def stepping(
    mode: str, batch: Batch, config: Config
) -> tuple[dict[str, Callable[[], Any]], jax.stages.Compiled]:
    """Functions that start the work once and return its result without waiting; the program.

    The key '' is the whole work, and 'forward_' for inference the network alone.
    """
    mesh = make_mesh(jax.devices()[:1])
    setup = make_setup(config, CATEGORIES, mesh, print)
    batch = to_devices(batch, mesh)
    if mode == "infer":
        variables = setup.state.variables()
        model = make_model(config)
        inputs = variables, batch.images, batch.image_sizes, batch.original_sizes
        predict = make_predict_fn(model, config, mesh).compiled.lower(*inputs).compile()
        forward = jax.jit(functools.partial(run_network, model=model, config=config))
        starts = {
            "": lambda: predict(*inputs),
            "forward_": lambda: forward(variables, batch.images, batch.image_sizes),
        }
        return starts, predict
    state, rest = setup.state, (batch, setup.focal, setup.schedule(0))
    train_step = setup.step_fn.lower(state, *rest).compile()

    def step() -> dict[str, jax.Array]:
        nonlocal state
        state, metrics = train_step(state, *rest)
        return metrics

    return {"": step}, train_step


def planned(program: jax.stages.Compiled, device: jax.Device) -> dict[str, float]:
    """Time and memory in the compiler's plan; nothing for a device that chips.py does not know."""
    if (chip := chip_of_device(device)) is None:
        return {}
    plan = read_plan(program, chip)
    return {"planned_ms": 1e3 * plan.seconds, "planned_memory_mb": plan.memory / 1e6}


def make_model(config: Config) -> RetinaNet:
    per_location = config.anchors.anchors_per_location
    return build_model(config.model, CATEGORIES.num_classes, per_location)


def time_steps(start: Callable[[], Any], count: int) -> dict[str, float]:
    """CPU and wall time of a step: starts `count` steps and waits for the last.

    As in training, the device does not wait for the host between steps.
    """
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        last = start()
    jax.block_until_ready(last)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"cpu_s": cpu / count, "wall_s": wall / count}


def matrix_rate(dtype: str) -> float:
    """Operations per second of a large matrix product of random numbers.

    With zeros or ones a GPU draws less power and is faster.
    """
    side, count = (1024, 1) if jax.default_backend() == "cpu" else (8192, 10)
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(matrix, matrix))
    best = min(time_steps(lambda: multiply(matrix, matrix), count)["wall_s"] for _ in range(10))
    return 2 * side**3 / best


def device_memory() -> dict[str, float]:
    """Peak memory of the device, if JAX reports it; on a CPU it does not."""
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return {} if peak is None else {"memory_mb": peak / 1e6}


if __name__ == "__main__":
    mode, *case, dtype, backbone, steps, remat, profile = sys.argv[1:]
    config = configured(dtype, backbone, remat)
    starts, program = stepping(mode, random_batch(*map(int, case)), config)
    for start in starts.values():
        jax.block_until_ready(start())  # compiles
    if profile:
        with jax.profiler.trace(os.path.join(profile, "x".join([mode, *case]))):
            jax.block_until_ready(starts[""]())
    about = {"name": os.environ.get("XLA_FLAGS", "").strip()}
    about |= {"device": jax.devices()[0].device_kind, **device_memory()}  # before matrix_rate
    about |= planned(program, jax.devices()[0])

    def round_of_work() -> dict:
        times = {
            prefix + measure: value
            for prefix, start in starts.items()
            for measure, value in time_steps(start, int(steps)).items()
        }
        return times | about | {"rate": matrix_rate(dtype)}

    serve(round_of_work)
