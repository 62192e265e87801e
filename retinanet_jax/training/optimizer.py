"""Learning-rate schedules; SGD and AdamW with frozen parameters; averaging of the weights."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from retinanet_jax.config.sections import OptimizerConfig

Params = Any  # a pytree of arrays, as flax's init returns it
Schedule = Callable[[int], np.float32]

SCHEDULE_FIELDS = (
    *("learning_rate", "base_batch_size", "schedule", "decay_at", "decay_factor"),
    *("warmup_steps", "warmup_factor"),
)
"""The fields of OptimizerConfig that determine the learning rate; no compiled step has them."""


def scaled_learning_rate(config: OptimizerConfig, batch_size: int) -> float:
    """The peak learning rate of a run with `batch_size` images per update."""
    ratio = batch_size / config.base_batch_size
    return config.learning_rate * (ratio if config.name == "sgd" else ratio**0.5)


def published_learning_rate(name: str, batch_size: int) -> float:
    """The peak learning rate of the published baselines, scaled to a batch size.

    Both were trained with 16 images: sgd with 0.01 (the paper, section 4), adamw with 1e-4
    (torchvision's retinanet_resnet50_fpn_v2).
    """
    rate = {"sgd": 0.01, "adamw": 1e-4}[name]
    return scaled_learning_rate(OptimizerConfig(name=name, learning_rate=rate), batch_size)


def make_schedule(config: OptimizerConfig, batch_size: int, total_steps: int) -> Schedule:
    """Learning rate as a function of the number of updates done, computed on the host.

    It is an argument of the compiled step. As a part of the step, XLA would fuse it into the update
    of every parameter, and compile it again for each shape.

    A linear warm-up multiplies the schedule and does not delay it, as in detectron2.

    Args:
        config: see OptimizerConfig.
        batch_size: images per update over all devices.
        total_steps: updates of the whole run; `decay_at` are fractions of it.
    """
    peak = scaled_learning_rate(config, batch_size)
    boundaries = [round(at * total_steps) for at in config.decay_at]

    def schedule(step: int) -> np.float32:
        rate = peak
        if config.schedule == "cosine":
            rate *= (1 + math.cos(math.pi * min(step / total_steps, 1))) / 2
        elif config.schedule == "step":
            rate *= config.decay_factor ** sum(step >= boundary for boundary in boundaries)
        if step < config.warmup_steps:
            progress = step / config.warmup_steps
            rate *= config.warmup_factor * (1 - progress) + progress
        return np.float32(rate)

    return schedule


def kernels_only(params: Params) -> Params:
    """Mask for weight decay: True for kernels, False for biases and norm scales.

    Kernels are the parameters with more than one dimension.
    """
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def backbone_only(params: Params) -> Params:
    """Mask: True for the parameters of the backbone."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "backbone", params)


def make_optimizer(
    config: OptimizerConfig, trainable: Params
) -> optax.GradientTransformationExtraArgs:
    """The gradient transformation of a run; `update` takes the keyword `learning_rate`.

    Args:
        config: see OptimizerConfig; SCHEDULE_FIELDS are not read.
        trainable: pytree of bool like the parameters. Parameters with False have no updates, no
            decay and no optimizer state.
    """
    parts = []
    if config.gradient_clip is not None:
        parts.append(optax.clip_by_global_norm(config.gradient_clip))
    mask = kernels_only if config.decay == "kernels" else None
    if config.name == "sgd":
        # The order of torch.optim.SGD: weight decay, momentum, learning rate. A change of the rate
        # takes effect at once.
        parts.append(optax.add_decayed_weights(config.weight_decay, mask))
        parts.append(optax.trace(config.momentum, config.nesterov))
    else:
        parts.append(optax.scale_by_adam())
        parts.append(optax.add_decayed_weights(config.weight_decay, mask))
    parts.append(scale_by_given_rate())
    if config.backbone_factor != 1:
        parts.append(optax.masked(optax.scale(config.backbone_factor), backbone_only))
    labels = jax.tree.map(lambda t: "train" if t else "freeze", trainable)
    return optax.multi_transform(
        {"train": optax.chain(*parts), "freeze": optax.set_to_zero()}, labels
    )


def scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
    """Multiplies by -learning_rate, which `update` takes as a keyword."""

    def update(updates, state, params=None, *, learning_rate, **unused):
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def update_average(average: Params, params: Params, step: jax.Array, decay: float) -> Params:
    """One update of the moving average of the weights (float32).

    Args:
        average: the average before.
        params: the weights after update `step`.
        step: number of the update, from 0.
        decay: see OptimizerConfig.ema_decay.
    """
    now = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: a + (1.0 - now) * (p - a), average, params)
