"""Builds the compiled functions and the first state of a run.

A compiled step belongs to its function object: building the same function again compiles again.
The seed, the focusing parameters (core/focal.py, FocalParams) and the learning rate are arguments
of the compiled functions, and HOST_SECTIONS are read outside of them, so a sweep over these
compiles once.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax.sharding import Mesh

from retinanet_jax.config.sections import OptimizerConfig
from retinanet_jax.config.settings import Config
from retinanet_jax.core.focal import FocalParams
from retinanet_jax.core.initialization import Drawn, Initializer
from retinanet_jax.core.retinanet import build_model, trainable_mask
from retinanet_jax.data.pipeline.prefetch import HasSource
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.mesh import replicated, state_sharding
from retinanet_jax.runtime.traced_programs import stored
from retinanet_jax.training.norm_statistics import (
    norms_without_statistics,
    sample_batches,
    with_statistics,
)
from retinanet_jax.training.optimizer import (
    SCHEDULE_FIELDS,
    Schedule,
    make_optimizer,
    make_schedule,
)
from retinanet_jax.training.step import StepFn, focal_params, make_train_step
from retinanet_jax.training.train_state import TrainState, create_state
from retinanet_jax.training.validation_loss import MeasureFn, make_measure_fn
from retinanet_jax.weights.pretrained import load_pretrained
from retinanet_jax.weights.weights_error import WeightsError

Variables = dict[str, Any]

HOST_SECTIONS = ("data", "pipeline", "augmentation", "train", "evaluation")
"""Sections of a config that no compiled function reads; they only affect the batches."""


class CompiledFunctions(NamedTuple):
    """The compiled functions of a run; each compiles at its first call.

    init_fn: function from a seed to random variables of the model.
    first_state_fn: function from a seed, or from variables, to the state before the first update.
    state_shapes: this state as ShapeDtypeStructs with shardings.
    step_fn: compiled `train_step`.
    measure_fn: `predict` with the losses of each image, for evaluations during the run.
    """

    init_fn: Callable[[int], Variables]
    first_state_fn: Callable[[int | Variables], TrainState]
    state_shapes: TrainState
    step_fn: StepFn
    measure_fn: MeasureFn


def compile_functions(config: Config, num_classes: int, mesh: Mesh) -> CompiledFunctions:
    """Builds the functions for a config; they depend only on its `compilation_key`."""
    config = compilation_key(config)
    model = build_model(config.model, num_classes, config.anchors.anchors_per_location)
    initializer = Initializer(model)
    init, variable_shapes = initializer.variables, initializer.variable_shapes
    trainable = trainable_mask(variable_shapes["params"], config.model)
    optimizer = make_optimizer(config.optimizer, trainable)

    def first_state(start: Drawn | Variables) -> TrainState:
        return create_state(
            start if isinstance(start, Mapping) else init(start),
            optimizer=optimizer,
            keep_average=config.optimizer.ema_decay is not None,
            keep_positives=config.loss.normalizer == "running",
        )

    shapes = jax.eval_shape(first_state, variable_shapes)
    sharding = state_sharding(shapes, mesh, config.mesh)
    # One program, where a program per shape of a parameter would take seconds to compile.
    compiled = stored(
        jit_once(first_state, out_shardings=sharding),
        first_state,
        f"first_state {model!r} {config!r}",
        pack=jax.tree.leaves,
        unpack=lambda _, leaves: jax.tree.unflatten(jax.tree.structure(shapes), leaves),
        out_shardings=jax.tree.leaves(sharding),
        **once_options(),
    )
    return CompiledFunctions(
        init_fn=lambda seed: jit_once(init)(initializer.draw(seed)),
        first_state_fn=lambda start: compiled(
            initializer.draw(start) if isinstance(start, int) else start
        ),
        state_shapes=jax.tree.map(lambda x, s: x.update(sharding=s), shapes, sharding),
        step_fn=make_train_step(model, optimizer, config, mesh, sharding),
        measure_fn=make_measure_fn(model, config, mesh),
    )


def compilation_key(config: Config) -> Config:
    """Returns `config` without what the compiled functions do not read, or take as arguments.

    Configs with equal keys share compiled functions. HOST_SECTIONS are None in a key, so a compiled
    function that reads one raises an error.
    """
    loss = dataclasses.replace(config.loss, gamma=1.0, alpha=None, star_beta=0.0)
    constants = {field: getattr(OptimizerConfig, field) for field in SCHEDULE_FIELDS}
    optimizer = dataclasses.replace(config.optimizer, **constants)
    unread = dict.fromkeys(HOST_SECTIONS)
    return dataclasses.replace(config, seed=0, loss=loss, optimizer=optimizer, **unread)


def init_variables(model: nn.Module, seed: int) -> Variables:
    """Returns random variables of a model, float32, equal on all platforms."""
    initializer = Initializer(model)
    return jit_once(initializer.variables)(initializer.draw(seed))


def jit_once(function: Callable, **options: Any) -> Callable:
    """Like `jax.jit`, for a function that runs once: compiles faster, runs slower."""
    return jax.jit(function, **once_options(), **options)


def once_options() -> dict[str, Any]:
    """Returns the compiler options of `jit_once`."""
    # On the CPU, LLVM's optimization would take ten seconds and gain nothing.
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return {"compiler_options": quick} if jax.default_backend() == "cpu" else {}


class TrainingSetup(NamedTuple):
    """What the training loop needs: the compiled functions, their arguments and the first state."""

    step_fn: StepFn
    measure_fn: MeasureFn
    focal: FocalParams
    schedule: Schedule
    state: TrainState  # or its shapes, if it will be restored


def make_setup(
    config: Config,
    categories: Categories,
    mesh: Mesh,
    log_message: Callable[[str], None],
    functions: CompiledFunctions | None = None,
    restored: bool = False,
    train_set: HasSource | None = None,
) -> TrainingSetup:
    """Returns compiled functions and first state, with pretrained weights if the config has any.

    Args:
        config: configuration of the run.
        categories: classes to learn.
        mesh: mesh of devices.
        log_message: function that is called with a summary of the pretrained weights.
        functions: compiled functions of this config, if they exist already.
        restored: True if the state will be restored from a checkpoint; its shapes are enough then.
        train_set: used for pretrained weights whose batch norm needs statistics; see first_state.
    """
    functions = functions or compile_functions(config, categories.num_classes, mesh)
    if restored:
        state = functions.state_shapes
    else:
        state = first_state(functions, config, categories, log_message, train_set)
    return TrainingSetup(
        step_fn=functions.step_fn,
        measure_fn=functions.measure_fn,
        focal=jax.device_put(focal_params(config.loss), replicated(mesh)),
        schedule=make_schedule(config.optimizer, config.train.batch_size, config.train.steps),
        state=state,
    )


def first_state(
    functions: CompiledFunctions,
    config: Config,
    categories: Categories,
    log_message: Callable[[str], None],
    train_set: HasSource | None = None,
) -> TrainState:
    """Returns the state before the first update, from pretrained or random weights.

    Raises:
        WeightsError: the weights do not fit, or live batch norm needs statistics that they do not
            have and no train_set is given to compute them.
    """
    if config.model.pretrained is None:
        return functions.first_state_fn(config.seed)
    variables = functions.init_fn(config.seed)
    imported = load_pretrained(config.model.pretrained, variables, config, categories)
    log_message(f"{config.model.pretrained}\n{imported.summary()}")
    start = imported.variables
    if config.model.norm == "batch" and norms_without_statistics(start):
        if train_set is None:
            raise WeightsError(
                f"{config.model.pretrained}: its batch norm has no statistics (they are part of "
                "the weights); write --config.model.norm=frozen_batch"
            )
        log_message("  its batch norm has no statistics: computed from images of the training set")
        start = with_statistics(start, sample_batches(train_set, config), config)
    return functions.first_state_fn(start)


class RunCache:
    """Datasets and compiled functions of the last run, for the next run in the same process.

    datasets: dict from config.data to (training set, evaluation set).
    """

    def __init__(self):
        # Imported here: a network alone needs no packages for data.
        from retinanet_jax.data.mix import load_datasets

        # Only the latest: runs follow each other, and datasets may be large.
        self.datasets = functools.lru_cache(1)(load_datasets)
        self._functions = functools.lru_cache(1)(compile_functions)

    def functions(self, config: Config, num_classes: int, mesh: Mesh) -> CompiledFunctions:
        """Returns the functions of the last run if they are the same, else builds new ones."""
        return self._functions(compilation_key(config), num_classes, mesh)
