"""Contestant of infer.py and train.py: this package's compiled functions."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import inputs
from benchmarks.contestants import serve, time_calls
from retinanet_jax.config import Config, default_config, from_config_dict
from retinanet_jax.data.batch import Batch
from retinanet_jax.data.records import Categories
from retinanet_jax.learner import make_learner
from retinanet_jax.mesh import make_mesh, to_devices
from retinanet_jax.recipes import with_recipe

CATEGORIES = Categories(tuple(f"class {i}" for i in range(80)), tuple(range(1, 81)))


def configured(dtype: str, backbone: str) -> Config:
    """torchvision's conventions, random weights.

    Norms, stem and res2 are frozen as for pretrained weights, which a config refuses without them.
    """
    free = {"model.frozen_stages": 0, "model.norm": "batch"}
    tree = with_recipe(default_config(), "torchvision_v1")
    tree.update_from_flattened_dict({**free, "model.dtype": dtype, "model.backbone": backbone})
    config = from_config_dict(tree)
    frozen = dataclasses.replace(config.model, frozen_stages=2, norm="frozen_batch")
    return dataclasses.replace(config, model=frozen)


def made_up(size: int, batch: int) -> Batch:
    images, boxes, labels = inputs.pictures(size, batch)
    sizes = np.full((batch, 2), size, np.float32)
    crowd, valid = np.zeros(labels.shape, bool), np.ones(batch, bool)
    return Batch(images, sizes, sizes, boxes, labels, crowd, valid)


def stepping(mode: str, batch: Batch, config: Config) -> Callable[[], object]:
    """A function without arguments that does the work once and waits for it."""
    mesh = make_mesh(jax.devices()[:1])
    learner = make_learner(config, CATEGORIES, mesh, print)
    batch = to_devices(batch, mesh)
    if mode == "infer":
        variables = learner.state.variables()
        return lambda: jax.block_until_ready(learner.predict_fn(variables, batch))
    state = learner.state

    def step() -> None:
        nonlocal state
        state, metrics = learner.step_fn(state, batch, learner.focal)
        jax.block_until_ready(metrics)

    return step


def matrix_rate(dtype: str) -> float:
    """Operations a second of a large matrix product."""
    side = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((side, side), dtype)
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(matrix, matrix))
    times = [
        time_calls(lambda: jax.block_until_ready(multiply(matrix, matrix)))["wall_s"]
        for _ in range(10)
    ]
    return 2 * side**3 / min(times)


if __name__ == "__main__":
    mode, size, batch, dtype, backbone, profile = sys.argv[1:]
    step = stepping(mode, made_up(int(size), int(batch)), configured(dtype, backbone))
    step()
    with jax.profiler.trace(profile) if profile else contextlib.nullcontext():
        step()
    device = jax.devices()[0].device_kind
    serve(lambda: time_calls(step) | {"rate": matrix_rate(dtype), "device": device})
