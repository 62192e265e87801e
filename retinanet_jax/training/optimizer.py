"""Learning-rate schedules and optimizers by name; frozen parameters; averaging of the weights."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from retinanet_jax.config import sections
from retinanet_jax.config.sections import OptimizerConfig
from retinanet_jax.core.resnet import stages_of

Params = Any  # a pytree of arrays, as flax's init returns it
Schedule = Callable[[int], np.float32]

SCHEDULE_FIELDS = (
    *("learning_rate", "base_batch_size", "schedule", "decay_at", "decay_factor"),
    *("warmup_steps", "warmup_factor"),
)
"""Fields of OptimizerConfig that determine the learning rate; no compiled step depends on them."""


def scaled_learning_rate(config: OptimizerConfig, batch_size: int) -> float:
    """Returns the peak learning rate of a run with `batch_size` images per update."""
    ratio = batch_size / config.base_batch_size
    return config.learning_rate * (ratio if config.name == "sgd" else ratio**0.5)


def published_learning_rate(name: str, batch_size: int) -> float:
    """Returns the peak learning rate of the published baselines, scaled to a batch size.

    Both were trained with 16 images: sgd with 0.01 (the paper, section 4), and adamw with 1e-4
    (torchvision's retinanet_resnet50_fpn_v2). Other optimizers get the rate of adamw.
    """
    rate = 0.01 if name == "sgd" else 1e-4
    return scaled_learning_rate(OptimizerConfig(name=name, learning_rate=rate), batch_size)


def make_schedule(config: OptimizerConfig, batch_size: int, total_steps: int) -> Schedule:
    """Returns the learning rate as a function of the number of updates done, for the host.

    The rate is an argument of the compiled step. If the step computed it, XLA would fuse it into
    the update of every parameter, and compile it again for each shape.

    A linear warm-up multiplies the schedule and does not delay it, as in detectron2.

    Args:
        config: see OptimizerConfig.
        batch_size: images per update over all devices.
        total_steps: updates of the whole run; `decay_at` has fractions of this number.
    """
    peak = scaled_learning_rate(config, batch_size)
    factor = SCHEDULES[config.schedule]

    def schedule(step: int) -> np.float32:
        rate = peak * factor(step, total_steps, config)
        if step < config.warmup_steps:
            progress = step / config.warmup_steps
            rate *= config.warmup_factor * (1 - progress) + progress
        return np.float32(rate)

    return schedule


def _step_decay(step: int, total_steps: int, config: OptimizerConfig) -> float:
    return config.decay_factor ** sum(step >= round(at * total_steps) for at in config.decay_at)


def _cosine(step: int, total_steps: int, config: OptimizerConfig) -> float:
    return (1 + math.cos(math.pi * min(step / total_steps, 1))) / 2


ScheduleFactor = Callable[[int, int, OptimizerConfig], float]
SCHEDULES: dict[str, ScheduleFactor] = {
    "step": _step_decay,
    "cosine": _cosine,
    "constant": lambda step, total_steps, config: 1.0,
}


def add_schedule(name: str, factor: ScheduleFactor) -> None:
    """Registers a value of `optimizer.schedule`.

    Args:
        name: name of the schedule.
        factor: function of (updates done, updates of the run, OptimizerConfig) that returns a
            factor of the peak rate. The warm-up multiplies it.
    """
    if name not in sections.SCHEDULES:
        sections.SCHEDULES.append(name)
    SCHEDULES[name] = factor


def kernels_only(params: Params) -> Params:
    """Mask for weight decay: True for kernels, False for biases and norm scales.

    Kernels are the parameters with more than one dimension.
    """
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def backbone_only(params: Params) -> Params:
    """Mask: True for the parameters of the backbone."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "backbone", params)


Transformation = optax.GradientTransformation
MakeOptimizer = Callable[[OptimizerConfig, Transformation], Sequence[Transformation]]


def _sgd(config: OptimizerConfig, decay: Transformation) -> Sequence[Transformation]:
    # The order of torch.optim.SGD: weight decay, momentum, learning rate. A change of the rate
    # takes effect at once.
    return decay, optax.trace(config.momentum, config.nesterov)


def _adamw(config: OptimizerConfig, decay: Transformation) -> Sequence[Transformation]:
    return optax.scale_by_adam(), decay


OPTIMIZERS: dict[str, MakeOptimizer] = {"sgd": _sgd, "adamw": _adamw}


def add_optimizer(name: str, make: MakeOptimizer) -> None:
    """Registers a value of `optimizer.name`.

    Args:
        name: name of the optimizer.
        make: function of (OptimizerConfig, weight decay) that returns gradient transformations in
            their order, including weight decay. Clipping, learning rate and frozen parameters are
            applied around them.
    """
    if name not in sections.OPTIMIZERS:
        sections.OPTIMIZERS.append(name)
    OPTIMIZERS[name] = make


def make_optimizer(
    config: OptimizerConfig, trainable: Params
) -> optax.GradientTransformationExtraArgs:
    """Returns the gradient transformation of a run; `update` takes the keyword `learning_rate`.

    Args:
        config: see OptimizerConfig; SCHEDULE_FIELDS are not read.
        trainable: pytree of bool with the structure of the parameters. Parameters with False get no
            updates, no decay and no optimizer state.

    Raises:
        ValueError: stage_decay is set, but the backbone does not have the stages of a ResNet.
    """
    if config.stage_decay != 1 and not stages_of(trainable["backbone"]):
        raise ValueError("optimizer.stage_decay: only supported for ResNet backbones; write 1")
    parts = []
    if config.gradient_clip is not None:
        parts.append(optax.clip_by_global_norm(config.gradient_clip))
    mask = kernels_only if config.decay == "kernels" else None
    parts += OPTIMIZERS[config.name](config, optax.add_decayed_weights(config.weight_decay, mask))
    parts.append(scale_by_given_rate())
    if config.backbone_factor != 1:
        parts.append(optax.masked(optax.scale(config.backbone_factor), backbone_only))
    if config.stage_decay != 1:
        parts.append(scale_by_stage(config.stage_decay))
    labels = jax.tree.map(lambda t: "train" if t else "freeze", trainable)
    return optax.multi_transform(
        {"train": optax.chain(*parts), "freeze": optax.set_to_zero()}, labels
    )


def scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
    """Multiplies by -learning_rate, which `update` takes as a keyword."""

    def update(updates, state, params=None, *, learning_rate, **unused):
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def scale_by_stage(decay: float) -> optax.GradientTransformation:
    """Multiplies the updates of a ResNet's layer4 by decay, of layer3 by decay^2, ..., and of the
    stem by decay^5; all other updates are unchanged."""

    def update(updates, state, params=None):
        backbone = dict(updates["backbone"])
        for name, stage in stages_of(backbone).items():
            backbone[name] = optax.tree.scale(decay ** (5 - stage), backbone[name])
        return updates | {"backbone": backbone}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def update_average(average: Params, params: Params, step: jax.Array, decay: float) -> Params:
    """Updates the moving average of the weights (float32) once.

    Args:
        average: the previous average.
        params: the weights after update `step`.
        step: number of the update, from 0.
        decay: see OptimizerConfig.ema_decay.
    """
    now = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: a + (1.0 - now) * (p - a), average, params)
