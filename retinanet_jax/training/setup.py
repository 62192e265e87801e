"""What a run trains with: its compiled functions and its first state.

A compiled step belongs to its function object: a run that builds the same function again compiles
it again. The seed and the focusing parameters are arguments of the compiled functions
(step.FocalParams) and not part of them, so that a sweep over gamma, alpha and seeds compiles once.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import UInt32

from retinanet_jax.config.sections import DataConfig
from retinanet_jax.config.settings import Config
from retinanet_jax.core.retinanet import build_model, trainable_mask
from retinanet_jax.data.dataset import Dataset, load_dataset
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.data.pipeline.batch import ArrayLike, Batch
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.predict import PredictFn, make_predict_fn
from retinanet_jax.runtime.mesh import replicated, state_sharding
from retinanet_jax.training.optimizer import make_optimizer, make_schedule
from retinanet_jax.training.step import (
    FocalParams,
    TrainState,
    create_state,
    focal_params,
    make_train_step,
)
from retinanet_jax.weights.pretrained import load_pretrained

Variables = dict[str, Any]
Seed = UInt32[jax.Array | np.ndarray, ""]
ANY_SEED = np.zeros((), np.uint32)  # shapes do not depend on it


class CompiledFunctions(NamedTuple):
    """The functions of a run that are compiled, each at its first call.

    init_fn: from a seed to random variables of the model.
    first_state_fn: from a seed, or from variables, to the state before the first update.
    state_like: that state's arrays as ShapeDtypeStructs with shardings.
    step_fn: `train_step`.
    predict_fn: `predict`.
    """

    init_fn: Callable[[int], Variables]
    first_state_fn: Callable[[int | Variables], TrainState]
    state_like: TrainState
    step_fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    predict_fn: PredictFn


def compile_functions(config: Config, num_classes: int, mesh: Mesh) -> CompiledFunctions:
    """The functions for a config; its seed and focusing parameters are not looked at."""
    config = without_arguments(config)
    model = build_model(config.model, num_classes, config.anchors.anchors_per_location)
    init = initializer(model)
    schedule = make_schedule(config.optimizer, config.train.batch_size, config.train.steps)
    trainable = trainable_mask(jax.eval_shape(init, ANY_SEED)["params"], config.model)
    optimizer = make_optimizer(config.optimizer, schedule, trainable)

    def first_state(seed_or_variables: Seed | Variables) -> TrainState:
        given = isinstance(seed_or_variables, Mapping)
        return create_state(
            seed_or_variables if given else init(seed_or_variables),
            optimizer=optimizer,
            keep_average=config.optimizer.ema_decay is not None,
            keep_positives=config.loss.normalizer == "running",
        )

    shapes = jax.eval_shape(first_state, ANY_SEED)
    sharding = state_sharding(shapes, mesh, config.mesh)
    return CompiledFunctions(
        once(init),
        # One program instead of one for every shape of a parameter, which take seconds to compile.
        once(first_state, out_shardings=sharding),
        jax.tree.map(lambda x, s: x.update(sharding=s), shapes, sharding),
        make_train_step(model, optimizer, schedule, config, mesh, sharding),
        make_predict_fn(model, config, mesh),
    )


def without_arguments(config: Config) -> Config:
    """A config in which everything has one value that `CompiledFunctions` take as an argument.

    Configs that are the same then have the same functions. `alpha` is None in it, so that a step
    without weighting (an argument None, of which it compiles a version of its own) finds no number
    to fall back upon.
    """
    loss = dataclasses.replace(config.loss, gamma=1.0, alpha=None, star_beta=0.0)
    return dataclasses.replace(config, seed=0, loss=loss)


def init_variables(model: nn.Module, seed: int) -> Variables:
    """Random variables of a model, float32, the same on every platform."""
    return once(initializer(model))(seed)


def initializer(model: nn.Module) -> Callable[[Seed], Variables]:
    """From a seed to random variables, traced once."""

    @jax.jit
    def init(seed: Seed) -> Variables:
        # Parameters do not depend on the image's size.
        return model.init(jax.random.key(seed), jnp.zeros((1, 64, 64, 3)), train=False)

    return init


def once(function: Callable, **options: Any) -> Callable:
    """A function compiled in little time, for it runs once a run; it takes a seed or a tree."""
    # On the CPU, LLVM's optimisation would cost ten seconds and win nothing.
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    if jax.default_backend() == "cpu":
        options["compiler_options"] = quick
    compiled = jax.jit(function, **options)
    # A key made of an int is that of its lowest 32 bits; made outside, it is three more functions.
    return lambda x: compiled(np.array(x & 0xFFFFFFFF, np.uint32) if isinstance(x, int) else x)


class TrainingSetup(NamedTuple):
    """A model ready to learn: its compiled functions, and the state that they work on."""

    step_fn: Callable[[TrainState, Batch, FocalParams], tuple[TrainState, dict[str, ArrayLike]]]
    predict_fn: PredictFn
    focal: FocalParams
    state: TrainState  # or its shapes, of one that is restored


def make_setup(
    config: Config,
    categories: Categories,
    mesh: Mesh,
    say: Callable[[str], None],
    functions: CompiledFunctions | None = None,
    restored: bool = False,
) -> TrainingSetup:
    """Builds the first state, with pretrained weights where the config names them.

    Args:
        config: of the run.
        categories: what is learned.
        mesh: of devices.
        say: takes what is to be told of the weights.
        functions: of this config, if there are any yet.
        restored: a checkpoint takes the place of the first state, whose shapes suffice.
    """
    functions = functions or compile_functions(config, categories.num_classes, mesh)
    state = functions.state_like if restored else _first_state(functions, config, say)
    return TrainingSetup(
        step_fn=functions.step_fn,
        predict_fn=functions.predict_fn,
        focal=jax.device_put(focal_params(config.loss), replicated(mesh)),
        state=state,
    )


def _first_state(
    functions: CompiledFunctions, config: Config, say: Callable[[str], None]
) -> TrainState:
    if config.model.pretrained is None:
        return functions.first_state_fn(config.seed)
    variables = functions.init_fn(config.seed)
    imported = load_pretrained(config.model.pretrained, variables, config.model, config.anchors)
    say(f"{config.model.pretrained}\n{imported.summary()}")
    return functions.first_state_fn(imported.variables)


class RunCache:
    """What a run takes over from the one before it in the process, where both would make the same.

    datasets: from config.data to what is trained on and what is evaluated on.
    """

    def __init__(self):
        # The latest alone: one run goes after the other, and datasets may be large.
        self.datasets = functools.lru_cache(1)(load_datasets)
        self._functions = functools.lru_cache(1)(compile_functions)

    def functions(self, config: Config, num_classes: int, mesh: Mesh) -> CompiledFunctions:
        """`compile_functions`."""
        return self._functions(without_arguments(config), num_classes, mesh)


def load_datasets(data_config: DataConfig) -> tuple[Dataset, Dataset]:
    """What `data_config` says to train on, and what to evaluate on."""
    train_set = load_training_set(data_config)
    return train_set, load_dataset(data_config, data_config.eval_split)
