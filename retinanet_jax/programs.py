"""The compiled functions of a run.

A compiled step belongs to its function object: a run that makes the same function anew compiles
anew. Of a config, the seed and the focusing parameters are arguments of these functions
(train.Focal) and no part of them, so that a sweep over gamma, alpha and seeds compiles once.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from retinanet_jax.config import Config
from retinanet_jax.mesh import state_sharding
from retinanet_jax.models import build_model, trainable_mask
from retinanet_jax.optimizer import make_optimizer, make_schedule
from retinanet_jax.predict import PredictFn, make_predict_fn
from retinanet_jax.train import TrainState, create_state, make_train_step

Variables = dict[str, Any]


class Programs(NamedTuple):
    """The functions of a run that are compiled, each at its first call.

    init_fn: from a random key to the variables of the model.
    first_state_fn: from variables to the state before the first update.
    step_fn: `train_step`.
    predict_fn: `predict`.
    """

    init_fn: Callable[[jax.Array], Variables]
    first_state_fn: Callable[[Variables], TrainState]
    step_fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    predict_fn: PredictFn


def make_programs(config: Config, num_classes: int, mesh: Mesh) -> Programs:
    """The functions for a config; its seed and focusing parameters are not looked at."""
    config = without_arguments(config)
    model = build_model(config.model, num_classes, config.anchors.anchors_per_location)
    init_fn, variables = compile_init(model)
    schedule = make_schedule(config.optimizer, config.train.batch_size, config.train.steps)
    trainable = trainable_mask(variables["params"], config.model)
    optimizer = make_optimizer(config.optimizer, schedule, trainable)
    first_state = functools.partial(
        create_state,
        optimizer=optimizer,
        keep_average=config.optimizer.ema_decay > 0,
        keep_positives=config.loss.normalizer == "running",
    )
    sharding = state_sharding(jax.eval_shape(first_state, variables), mesh, config.mesh)
    return Programs(
        init_fn,
        # One program instead of one for every shape of a parameter, which take seconds to compile.
        jax.jit(first_state, out_shardings=sharding),
        make_train_step(model, optimizer, schedule, config, mesh, sharding),
        make_predict_fn(model, config),
    )


def without_arguments(config: Config) -> Config:
    """A config in which everything has one value that `Programs` take as an argument.

    Configs that are the same then have the same programs. `alpha` is None in it, so that a step
    without weighting (an argument None, of which it compiles a version of its own) finds no number
    to fall back upon.
    """
    loss = dataclasses.replace(config.loss, gamma=1.0, alpha=None, star_beta=0.0)
    return dataclasses.replace(config, seed=0, loss=loss)


def init_variables(model: nn.Module, seed: int) -> Variables:
    """Random variables of a model, float32, the same on every platform."""
    init_fn, _ = compile_init(model)
    return init_fn(jax.random.key(seed))


def compile_init(model: nn.Module) -> tuple[Callable[[jax.Array], Variables], Variables]:
    """The function from a key to random variables, and the shapes of these."""
    # Parameters do not depend on the image's size.
    images = jnp.zeros((1, 64, 64, 3))
    init = jax.jit(lambda key: model.init(key, images, train=False)).trace(jax.random.key(0))
    # It runs once a run: on the CPU, LLVM's optimisation would cost ten seconds and win nothing.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    options = options if jax.default_backend() == "cpu" else None
    return init.lower().compile(compiler_options=options), init.out_info
