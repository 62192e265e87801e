"""A model ready to learn and to predict: functions compiled over a mesh, and its first state."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from retinanet_jax.config import Config
from retinanet_jax.data.batch import ArrayLike, Batch
from retinanet_jax.data.records import Categories
from retinanet_jax.mesh import replicated, state_sharding
from retinanet_jax.models import build_model, trainable_mask
from retinanet_jax.optimizer import make_optimizer, make_schedule
from retinanet_jax.predict import PredictFn, make_predict_fn
from retinanet_jax.train import Focal, TrainState, create_state, focal_of, make_train_step
from retinanet_jax.weights.pretrained import load_pretrained


class Learner(NamedTuple):
    """A model ready to learn: its compiled functions, and the state that they work on."""

    step_fn: Callable[[TrainState, Batch, Focal], tuple[TrainState, dict[str, ArrayLike]]]
    predict_fn: PredictFn
    focal: Focal
    state: TrainState


def make_learner(
    config: Config, categories: Categories, mesh: Mesh, say: Callable[[str], None]
) -> Learner:
    """Builds the model and its first state, with pretrained weights where the config names them."""
    model = build_model(config.model, categories.num_classes, config.anchors.anchors_per_location)
    variables = init_variables(model, config.seed)
    if config.model.pretrained:
        imported = load_pretrained(config.model.pretrained, variables, config.model, config.anchors)
        say(f"{config.model.pretrained}\n{imported.summary()}")
        variables = imported.variables
    schedule = make_schedule(config.optimizer, config.train.batch_size, config.train.steps)
    trainable = trainable_mask(variables["params"], config.model)
    optimizer = make_optimizer(config.optimizer, schedule, trainable)
    first_state = functools.partial(
        create_state,
        optimizer=optimizer,
        keep_average=config.optimizer.ema_decay > 0,
        keep_positives=config.loss.normalizer == "running",
    )
    shapes = jax.eval_shape(first_state, variables)
    sharding = state_sharding(shapes, mesh, config.mesh)
    return Learner(
        step_fn=make_train_step(model, optimizer, schedule, config, mesh, sharding),
        predict_fn=make_predict_fn(model, config),
        focal=jax.device_put(focal_of(config.loss), replicated(mesh)),
        # One program instead of one for every shape of a parameter, which take seconds to compile.
        state=jax.jit(first_state, out_shardings=sharding)(variables),
    )


def init_variables(model: nn.Module, seed: int) -> dict[str, Any]:
    """Random variables of a model, float32, the same on every platform."""
    # Parameters do not depend on the image's size.
    images = jnp.zeros((1, 64, 64, 3))
    init = jax.jit(lambda key: model.init(key, images, train=False))
    # It runs once: on the CPU, LLVM's optimisation would cost ten seconds and win nothing.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    options = options if jax.default_backend() == "cpu" else None
    key = jax.random.key(seed)
    return init.lower(key).compile(compiler_options=options)(key)
