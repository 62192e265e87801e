"""The training state and the training step.

`train_step` contains the gradient and the update; `loop.py` calls it for each batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import anchors_for_image, feature_shapes
from retinanet_jax.core.assignment import assign_batch
from retinanet_jax.core.layers import normalize
from retinanet_jax.core.loss import Losses, retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.loss_normalizer import FIRST_POSITIVES, divisors, running_positives
from retinanet_jax.core.matching import ASSIGNERS
from retinanet_jax.core.retinanet import Predictions
from retinanet_jax.core.targets import Targets
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.runtime.mesh import gathered, map_images, on_own_rows, replicated
from retinanet_jax.training.device_augmentation import augment_on_device
from retinanet_jax.training.optimizer import update_average


@flax.struct.dataclass
class TrainState:
    """The state of a run after some steps: the content of a checkpoint.

    Attributes:
        step: number of updates done, int32.
        params: parameters of the model, float32.
        batch_stats: running mean and variance of the norms, float32.
        opt_state: state of the optimizer.
        average: moving average of {'params', 'batch_stats'}; None without ema_decay.
        positives: running mean of positives per image; None unless loss.normalizer is 'running'.
    """

    step: Any  # an array, or a shape or sharding in a tree of the same structure
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any = None
    positives: Any = None

    def variables(self) -> dict[str, Any]:
        """The variables for prediction: the moving average, if there is one."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    variables: Any,
    optimizer: optax.GradientTransformation,
    *,
    keep_average: bool,
    keep_positives: bool = False,
) -> TrainState:
    """The state before the first update.

    Args:
        variables: 'params' and, if the model has any, 'batch_stats'.
        optimizer: from `make_optimizer`.
        keep_average: whether to keep a moving average of the variables.
        keep_positives: whether to keep a running mean of positives (loss.normalizer 'running').
    """
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        # A copy: the step donates its input, and no buffer can be donated twice.
        average=jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats})
        if keep_average
        else None,
        positives=jnp.float32(FIRST_POSITIVES) if keep_positives else None,
    )


class FocalParams(NamedTuple):
    """Focusing parameters as arguments of the compiled step, so that a sweep compiles once.

    See LossConfig. If star_beta is None, the config's is used.
    """

    gamma: jax.Array
    alpha: jax.Array | None
    star_beta: jax.Array | None = None


def focal_params(config: LossConfig) -> FocalParams:
    """The focusing parameters of a config, as float32 scalars."""
    alpha = None if config.alpha is None else jnp.float32(config.alpha)
    return FocalParams(jnp.float32(config.gamma), alpha, jnp.float32(config.star_beta))


StepFn = Callable[
    [TrainState, Batch, FocalParams, jax.typing.ArrayLike],
    tuple[TrainState, dict[str, jax.Array]],
]
"""`train_step` for a run: from state, batch, focusing parameters and learning rate."""


def train_step(
    state: TrainState,
    batch: Batch,
    focal: FocalParams,
    learning_rate: jax.Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformationExtraArgs,
    config: Config,
    mesh: Mesh,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the model on one batch.

    If the loss or the gradient is not finite, the update is skipped: parameters, statistics and
    averages keep their values; counters of steps still advance.

    Args:
        state: before the update.
        batch: b images with their boxes, over all devices.
        focal: parameters of the class loss (paper, section 3 and appendix A).
        learning_rate: of this update, from `make_schedule`; a float32 scalar.
        model: from `build_model`.
        optimizer: from `make_optimizer`.
        config: sections loss, matching, anchors, optimizer and model.remat are read.
        mesh: of the devices that hold the batch and the state.

    Returns:
        The state after the update, and scalars: loss, class_loss, box_loss, positives (anchors per
        image), gradient_norm, gradient_norm/MODULE, learning_rate, skipped (1 or 0).
    """
    batch = augment_on_device(batch)
    canvas = batch.images.shape[1:3]
    anchors = anchors_for_image(canvas, config.anchors)
    # A dynamic assigner needs the predictions, which are computed inside the gradient.
    dynamic = ASSIGNERS[config.matching.assigner].needs_predictions
    targets, positives, divisor = None, state.positives, None
    if not dynamic:
        targets = assign_targets(anchors, batch, config, mesh)
        positives, divisor = normalizer(state, targets, batch, anchors, config.loss)

    def loss_fn(params, batch_stats, part, targets, divisor):
        predictions, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            normalize(part.images, config.pixels, part.image_sizes),
            train=True,
            mutable=["batch_stats"],
        )
        if dynamic:
            targets = assign_targets(anchors, part, config, mesh, predictions)
        options = focal._asdict() | {"divisor": divisor}
        options["grids"] = tuple(feature_shapes(canvas, config.anchors))
        options["map_images"] = functools.partial(map_images, mesh=mesh)

        def loss(predictions):
            return retinanet_loss(
                *predictions, anchors, targets, part.valid, config.loss, **options
            )

        if config.model.remat != "none":
            loss = jax.checkpoint(loss)
        losses = loss(predictions)
        # A network with group norm alone has no statistics.
        return losses.total, (losses, updated.get("batch_stats", batch_stats))

    # Gathers parameters that are divided over the devices once for all their uses.
    whole = state.replace(params=gathered(state.params, mesh))
    losses, batch_stats, gradients = accumulate_gradients(
        loss_fn, whole, (batch, targets, divisor), config.optimizer.accumulate_steps
    )
    updates, opt_state = optimizer.update(
        gradients, state.opt_state, state.params, learning_rate=learning_rate
    )
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        now = {"params": params, "batch_stats": batch_stats}
        average = update_average(average, now, state.step, config.optimizer.ema_decay)
    norms = {name: optax.tree.norm(part) for name, part in gradients.items()}
    norm = optax.tree.norm(norms)
    finite = jnp.isfinite(losses.total) & jnp.isfinite(norm)
    metrics = {
        "loss": losses.total,
        "class_loss": losses.class_loss,
        "box_loss": losses.box_loss,
        "positives": losses.num_positives / batch.images.shape[0],
        "gradient_norm": norm,
        **{f"gradient_norm/{name}": value for name, value in norms.items()},
        "learning_rate": learning_rate,
        "skipped": 1.0 - finite,
    }
    updated = TrainState(state.step + 1, params, batch_stats, opt_state, average, positives)
    return keep_finite(finite, updated, state), metrics


def keep_finite(finite: jax.Array, updated: TrainState, state: TrainState) -> TrainState:
    """The updated state if finite, else the previous state with the updated counters."""

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(finite, new, old) if jnp.issubdtype(new.dtype, jnp.floating) else new

    return jax.tree.map(choose, updated, state)


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformationExtraArgs,
    config: Config,
    mesh: Mesh,
    sharding: TrainState,
) -> StepFn:
    """`train_step` compiled for a mesh; it donates its input state.

    The batch is split over the mesh's data axis, the state according to `sharding` (from
    `mesh.state_sharding`). The compiler sums losses, gradients and batch statistics over the
    devices, so the results do not depend on their number. One compilation per canvas.
    """
    step = functools.partial(train_step, model=model, optimizer=optimizer, config=config, mesh=mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(sharding, replicated(mesh)))


def assign_targets(
    anchors: tuple[np.ndarray, ...],
    batch: Batch,
    config: Config,
    mesh: Mesh | None = None,
    predictions: Predictions | None = None,
) -> Targets:
    """Targets of every anchor of every image: Targets with leading axes b, n.

    With a mesh, each device matches its own images. Assigners with needs_predictions need the
    predictions of the batch.
    """

    def match(*objects_and_predictions: Any) -> Targets:
        *objects, predictions = objects_and_predictions
        return assign_batch(
            np.concatenate(anchors),
            *objects,
            config.matching,
            level_sizes=tuple(len(level) for level in anchors),
            anchors_per_location=config.anchors.anchors_per_location,
            predictions=predictions,
        )

    if not ASSIGNERS[config.matching.assigner].needs_predictions:
        predictions = None
    objects = batch.gt_boxes, batch.gt_labels, batch.gt_crowd
    return on_own_rows(match, mesh)(*objects, jax.lax.stop_gradient(predictions))


def normalizer(
    state: TrainState,
    targets: Targets,
    batch: Batch,
    anchors: tuple[np.ndarray, ...],
    config: LossConfig,
) -> tuple[jax.Array | None, jax.Array]:
    """TrainState.positives after this batch, and the divisors of its losses."""
    positives = state.positives
    if positives is not None:
        positives = running_positives(positives, targets.labels, batch.valid)
    sizes = tuple(len(level) for level in anchors)
    return positives, divisors(targets.labels, batch.valid, sizes, config, positives)


def accumulate_gradients(
    loss_fn: Callable, state: TrainState, examples: Any, parts: int
) -> tuple[Losses, Any, Any]:
    """Losses, batch statistics and gradients of a batch, computed in `parts` equal parts.

    Each part is divided by the divisors of the whole batch, so the losses and gradients of the
    parts add up to those of the batch. Only live batch norm differs: it sees one part at a time.

    Args:
        loss_fn: (params, batch_stats, *part of examples) to (loss, (Losses, batch_stats)).
        state: parameters and statistics.
        examples: a tuple of trees of arrays with the images of the batch along the first axis.
        parts: a divisor of the number of images.
    """
    gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
    if parts == 1:
        (_, (losses, stats)), gradients = gradient_fn(state.params, state.batch_stats, *examples)
        return losses, stats, gradients

    # Every parts-th image, so that each part is spread over the devices like the batch.
    def split(x):
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    def add_part(carry, part):
        sums, stats, total = carry
        (_, (losses, stats)), gradients = gradient_fn(state.params, stats, *part)
        sums, total = jax.tree.map(jnp.add, (sums, total), (gradients, losses))
        return (sums, stats, total), None

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    no_loss = Losses(*(jnp.zeros(()) for _ in Losses._fields))
    carry, _ = jax.lax.scan(
        add_part, (zeros, state.batch_stats, no_loss), jax.tree.map(split, examples)
    )
    gradients, stats, losses = carry
    return losses, stats, gradients
