"""Learning-rate schedules, SGD and AdamW with frozen and undecayed parameters, weight averaging."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Params = Any  # a pytree of arrays, as flax's init returns it
Schedule = Callable[[jax.Array | int], jax.Array]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How the parameters are updated. The defaults are detectron2's RetinaNet schedule.

    Attributes:
        name: 'sgd' (momentum as torch.optim.SGD, which the public baselines use) or 'adamw'.
        learning_rate: rate for a batch of `base_batch_size` images; the rate used is
            learning_rate * batch / base_batch_size for sgd (linear scaling, Goyal et al. 2017) and
            learning_rate * sqrt(batch / base_batch_size) for adamw (Malladi et al. 2022).
        base_batch_size: images per update that `learning_rate` was chosen for (paper: 16).
        momentum: of sgd; adamw uses beta1 .9, beta2 .999.
        nesterov: Nesterov momentum, sgd only.
        weight_decay: L2 for sgd (added to the gradient, as torch), decoupled for adamw.
        decay: 'all' (the paper's code and torchvision v1 decay norms and biases too) or 'kernels'.
        schedule: 'step', 'cosine' (to zero) or 'constant'.
        decay_at: for 'step': fractions of the run after which the rate is multiplied by
            `decay_factor`. Paper, section 4: 60k and 80k of 90k updates.
        decay_factor: see `decay_at`.
        warmup_steps: updates over which the rate rises linearly from `warmup_factor` of its value.
        warmup_factor: detectron2 starts at .001 of the rate, Detectron at 1/3.
        gradient_clip: largest global norm of the gradient; 0 is off.
        backbone_factor: the backbone's learning rate is this many times that of the rest; below 1
            spares pretrained features under adamw (DETR, arXiv 2005.12872, section 4: 0.1).
        accumulate_steps: a batch is worked off in so many parts: less memory, the same update.
        ema_decay: decay of the exponential moving average of the weights that evaluation then
            uses; 0 is off. Early on min(decay, (1 + step) / (10 + step)) is used.
    """

    name: str = "sgd"
    learning_rate: float = 0.01
    base_batch_size: int = 16
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay: str = "all"
    schedule: str = "step"
    decay_at: tuple[float, ...] = (2 / 3, 8 / 9)
    decay_factor: float = 0.1
    warmup_steps: int = 1000
    warmup_factor: float = 0.001
    gradient_clip: float = 0.0
    backbone_factor: float = 1.0
    accumulate_steps: int = 1
    ema_decay: float = 0.0

    def __post_init__(self):
        for field, allowed in (
            ("name", ("sgd", "adamw")),
            ("decay", ("all", "kernels")),
            ("schedule", ("step", "cosine", "constant")),
        ):
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"optimizer.{field}: {value!r} is not one of {', '.join(allowed)}")
        for field, low, high, rule in (
            ("learning_rate", 0, None, "above 0, such as 0.01"),
            ("base_batch_size", 0, None, "at least 1"),
            ("accumulate_steps", 0, None, "at least 1"),
            ("decay_factor", 0, 1, "between 0 and 1"),
        ):
            value = getattr(self, field)
            if value <= low or (high is not None and value >= high):
                raise ValueError(f"optimizer.{field}: {value} must be {rule}")
        for field in (
            "weight_decay",
            "warmup_steps",
            "gradient_clip",
            "warmup_factor",
            "backbone_factor",
        ):
            if getattr(self, field) < 0:
                raise ValueError(f"optimizer.{field}: {getattr(self, field)} must not be negative")
        for field in ("ema_decay", "momentum"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"optimizer.{field}: {getattr(self, field)} must be in [0, 1)")
        if not all(0 < at < 1 for at in self.decay_at) or list(self.decay_at) != sorted(
            self.decay_at
        ):
            raise ValueError(
                f"optimizer.decay_at: {self.decay_at} must be rising fractions of the run between "
                "0 and 1, such as (0.667, 0.889)"
            )


def scaled_learning_rate(config: OptimizerConfig, batch_size: int) -> float:
    """The highest learning rate of a run with `batch_size` images per update."""
    ratio = batch_size / config.base_batch_size
    return config.learning_rate * (ratio if config.name == "sgd" else ratio**0.5)


def published_learning_rate(name: str, batch_size: int) -> float:
    """The highest rate of the published baselines, scaled to a batch size as above.

    Both were trained with 16 images: sgd 0.01 (the paper, section 4), adamw 1e-4 (torchvision's
    retinanet_resnet50_fpn_v2).
    """
    rate = {"sgd": 0.01, "adamw": 1e-4}[name]
    return scaled_learning_rate(OptimizerConfig(name=name, learning_rate=rate), batch_size)


def make_schedule(config: OptimizerConfig, batch_size: int, total_steps: int) -> Schedule:
    """Learning rate as a function of the update's number: linear warm-up, then the schedule.

    The warm-up multiplies the schedule and does not delay it, as in detectron2.

    Args:
        config: see OptimizerConfig.
        batch_size: images per update over all devices.
        total_steps: updates of the whole run; `decay_at` are fractions of it.
    """
    peak = scaled_learning_rate(config, batch_size)
    if config.schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, total_steps)
    elif config.schedule == "step":
        main = optax.piecewise_constant_schedule(
            peak, {round(at * total_steps): config.decay_factor for at in config.decay_at}
        )
    else:
        main = optax.constant_schedule(peak)

    def schedule(step: jax.Array | int) -> jax.Array:
        progress = jnp.minimum(jnp.asarray(step, jnp.float32) / max(config.warmup_steps, 1), 1.0)
        if config.warmup_steps == 0:
            return jnp.asarray(main(step), jnp.float32)
        warmup = config.warmup_factor * (1 - progress) + progress
        return jnp.asarray(main(step) * warmup, jnp.float32)

    return schedule


def kernels_only(params: Params) -> Params:
    """Mask for weight decay: True for kernels, False for biases and norm scales.

    A kernel is what has more than one dimension; this holds for every layer of the model.
    """
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def backbone_only(params: Params) -> Params:
    """Mask that is True for the backbone's parameters."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "backbone", params)


def make_optimizer(
    config: OptimizerConfig, schedule: Schedule, trainable: Params
) -> optax.GradientTransformation:
    """The gradient transformation of a run.

    Args:
        config: see OptimizerConfig.
        schedule: learning rate by update, from `make_schedule`.
        trainable: pytree of bool like the parameters; the others get neither updates, decay nor
            optimizer state.
    """
    parts = []
    if config.gradient_clip:
        parts.append(optax.clip_by_global_norm(config.gradient_clip))
    mask = kernels_only if config.decay == "kernels" else None
    if config.name == "sgd":
        # The order of torch.optim.SGD: decay joins the gradient before the momentum, and the rate
        # multiplies after it, so that a drop of the rate acts at once.
        parts.append(optax.add_decayed_weights(config.weight_decay, mask))
        parts.append(optax.trace(config.momentum, config.nesterov))
    else:
        parts.append(optax.scale_by_adam())
        parts.append(optax.add_decayed_weights(config.weight_decay, mask))
    parts.append(optax.scale_by_learning_rate(schedule))
    if config.backbone_factor != 1:
        parts.append(optax.masked(optax.scale(config.backbone_factor), backbone_only))
    labels = jax.tree.map(lambda t: "train" if t else "freeze", trainable)
    return optax.multi_transform(
        {"train": optax.chain(*parts), "freeze": optax.set_to_zero()}, labels
    )


def update_average(average: Params, params: Params, step: jax.Array, decay: float) -> Params:
    """One update of the moving average of the weights (float32).

    Args:
        average: average so far.
        params: the weights after update `step`.
        step: number of the update, from 0.
        decay: see OptimizerConfig.ema_decay.
    """
    now = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: a + (1.0 - now) * (p - a), average, params)
