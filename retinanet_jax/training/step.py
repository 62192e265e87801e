"""The training step: gradient and update. `loop.py` calls it for each batch."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import anchors_for_image, feature_shapes
from retinanet_jax.core.focal import FocalParams
from retinanet_jax.core.layers import normalize
from retinanet_jax.core.loss import Losses, retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.retinanet import Predictions
from retinanet_jax.core.targets import Targets
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.runtime.mesh import gathered, map_images, replicated
from retinanet_jax.runtime.traced_programs import stored
from retinanet_jax.training.accumulation import accumulate_gradients
from retinanet_jax.training.batch_targets import assign_targets, labels_by_part, normalizer
from retinanet_jax.training.device_augmentation import augment_on_device
from retinanet_jax.training.gradient_norms import gradients_and_norms
from retinanet_jax.training.optimizer import Params, update_average
from retinanet_jax.training.train_state import TrainState


def focal_params(config: LossConfig) -> FocalParams:
    """Returns the focusing parameters as float32 scalars, an argument of the compiled step."""
    return jax.tree.map(jnp.float32, config.focal)


StepFn = Callable[
    [TrainState, Batch, FocalParams, jax.typing.ArrayLike],
    tuple[TrainState, dict[str, jax.Array]],
]
"""`train_step` of a run: a function of state, batch, focusing parameters and learning rate."""


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
    """Updates the model once, on one batch.

    If the loss or the gradient is not finite, the update is skipped: parameters, statistics and
    averages keep their values, but step counters still advance.

    Args:
        state: state before the update.
        batch: b images with their boxes, over all devices.
        focal: parameters of the class loss (paper, section 3 and appendix A).
        learning_rate: learning rate of this update, from `make_schedule`; a float32 scalar.
        model: network from `build_model`.
        optimizer: gradient transformation from `make_optimizer`.
        config: configuration, of which the sections loss, matching, anchors and optimizer, and
            model.remat, are read.
        mesh: mesh of the devices that hold the batch and the state.

    Returns:
        The state after the update, and scalars: loss, class_loss, box_loss, positives (anchors per
        image), gradient_norm, gradient_norm/MODULE, learning_rate, skipped (1 or 0).
    """
    anchors = anchors_for_image(batch.images.shape[1:3], config.anchors)
    parts = config.optimizer.accumulate_steps
    running, divisor = (state.batch_stats, state.positives), None
    if parts > 1:  # The divisor counts the positives of all parts.
        labels = labels_by_part(anchors, batch, config, mesh)
        positives, divisor = normalizer(state.positives, labels, batch.valid, anchors, config.loss)
        running = state.batch_stats, positives
    loss_fn = functools.partial(batch_loss, focal=focal, model=model, config=config, mesh=mesh)
    # Gathers parameters that are divided over the devices once for all their uses.
    whole = gathered(state.params, mesh)
    losses, running, gradients = accumulate_gradients(
        loss_fn, whole, running, (batch, divisor), parts
    )
    batch_stats, positives = running
    gradients, norms = gradients_and_norms(gradients, mesh, shard_state=config.mesh.shard_state)
    updates, opt_state = optimizer.update(
        gradients, state.opt_state, state.params, learning_rate=learning_rate
    )
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        now = {"params": params, "batch_stats": batch_stats}
        average = update_average(average, now, state.step, config.optimizer.ema_decay)
    metrics = step_metrics(losses, norms, batch.images.shape[0], learning_rate)
    updated = TrainState(state.step + 1, params, batch_stats, opt_state, average, positives)
    return keep_finite(metrics["skipped"] == 0, updated, state), metrics


def batch_loss(
    params: Params,
    running: tuple[Params, jax.Array | None],
    batch: Batch,
    divisor: jax.Array | None,
    *,
    focal: FocalParams,
    model: nn.Module,
    config: Config,
    mesh: Mesh,
) -> tuple[jax.Array, tuple[Losses, tuple[Params, jax.Array | None]]]:
    """Returns the loss of a batch, or of a part of it, as a function of the parameters.

    Args:
        params: parameters of the model.
        running: batch statistics, and the running mean of positives (TrainState.positives).
        batch: batch before augmentation on the device.
        divisor: divisor of the whole batch; None if `batch` is the whole batch.
        focal, model, config, mesh: see `train_step`.

    Returns:
        The loss, and a tuple of its parts and the running values after the batch.
    """
    batch_stats, positives = running
    canvas = batch.images.shape[1:3]
    anchors = anchors_for_image(canvas, config.anchors)
    variables = {"params": params, "batch_stats": batch_stats}
    parts = {"model": model, "config": config, "mesh": mesh}
    predictions, targets, updated = predict_and_assign(variables, batch, anchors, **parts)
    if divisor is None:
        positives, divisor = normalizer(
            positives, targets.labels, batch.valid, anchors, config.loss
        )

    def loss(predictions: Predictions) -> Losses:
        return retinanet_loss(
            *predictions,
            anchors,
            targets,
            batch.valid,
            config.loss,
            focal=focal,
            divisor=divisor,
            grids=tuple(feature_shapes(canvas, config.anchors)),
            map_images=functools.partial(map_images, mesh=mesh),
        )

    losses = (loss if config.model.remat == "none" else jax.checkpoint(loss))(predictions)
    # A network with group norm alone has no statistics.
    return losses.total, (losses, (updated.get("batch_stats", batch_stats), positives))


def predict_and_assign(
    variables: Params,
    batch: Batch,
    anchors: tuple[np.ndarray, ...],
    *,
    model: nn.Module,
    config: Config,
    mesh: Mesh | None,
) -> tuple[Predictions, Targets, Params]:
    """Returns predictions in training mode, targets and updated statistics; see `train_step`."""
    batch = augment_on_device(batch)
    predictions, updated = model.apply(
        variables,
        normalize(batch.images, config.pixels, batch.image_sizes),
        train=True,
        mutable=["batch_stats"],
    )
    return predictions, assign_targets(anchors, batch, config, mesh, predictions), updated


def step_metrics(
    losses: Losses, norms: dict[str, jax.Array], images: int, learning_rate: jax.Array
) -> dict[str, jax.Array]:
    """Returns the scalars of `train_step`; `norms` has the gradient norm of each module."""
    norm = optax.tree.norm(norms)
    finite = jnp.isfinite(losses.total) & jnp.isfinite(norm)
    return {
        "loss": losses.total,
        "class_loss": losses.class_loss,
        "box_loss": losses.box_loss,
        "positives": losses.num_positives / images,
        "gradient_norm": norm,
        **{f"gradient_norm/{name}": value for name, value in norms.items()},
        "learning_rate": learning_rate,
        "skipped": 1.0 - finite,
    }


def keep_finite(finite: jax.Array, updated: TrainState, state: TrainState) -> TrainState:
    """Returns the updated state if finite, else the previous state with updated counters."""

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
    """Returns `train_step` compiled for a mesh; it donates its input state.

    The batch is split over the mesh's data axis, and the state according to `sharding` (from
    `mesh.state_sharding`). The compiler sums losses, gradients and batch statistics over the
    devices, so the results do not depend on their number. It compiles once per canvas.
    """
    step = functools.partial(train_step, model=model, optimizer=optimizer, config=config, mesh=mesh)
    return stored(
        jax.jit(step, donate_argnums=0, out_shardings=(sharding, replicated(mesh))),
        step,
        f"train_step {model!r} {config!r}",
        pack=lambda results: (jax.tree.leaves(results[0]), results[1]),
        unpack=lambda arguments, packed: (
            jax.tree.unflatten(jax.tree.structure(arguments[0]), packed[0]),
            packed[1],
        ),
        donates_first=True,
        out_shardings=(jax.tree.leaves(sharding), replicated(mesh)),
    )
