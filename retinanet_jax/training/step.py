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
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.loss_normalizer import FIRST_POSITIVES, divisors, running_positives
from retinanet_jax.core.matching import ASSIGNERS
from retinanet_jax.core.retinanet import Predictions
from retinanet_jax.core.targets import Targets
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.runtime.mesh import gathered, map_images, on_own_rows, replicated
from retinanet_jax.runtime.traced_programs import stored
from retinanet_jax.training.accumulation import accumulate_gradients, split_into_parts
from retinanet_jax.training.device_augmentation import augment_on_device
from retinanet_jax.training.gradient_norms import gradients_and_norms
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
    canvas, parts = batch.images.shape[1:3], config.optimizer.accumulate_steps
    anchors = anchors_for_image(canvas, config.anchors)

    def loss_fn(params, running, part, divisor):
        batch_stats, positives = running
        part = augment_on_device(part)
        predictions, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            normalize(part.images, config.pixels, part.image_sizes),
            train=True,
            mutable=["batch_stats"],
        )
        targets = assign_targets(anchors, part, config, mesh, predictions)
        if divisor is None:
            positives, divisor = normalizer(
                positives, targets.labels, part.valid, anchors, config.loss
            )
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
        return losses.total, (losses, (updated.get("batch_stats", batch_stats), positives))

    running, divisor = (state.batch_stats, state.positives), None
    if parts > 1:  # The divisor counts the positives of all parts.
        labels = labels_by_part(anchors, batch, config, mesh)
        positives, divisor = normalizer(state.positives, labels, batch.valid, anchors, config.loss)
        running = state.batch_stats, positives
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


def labels_by_part(
    anchors: tuple[np.ndarray, ...], batch: Batch, config: Config, mesh: Mesh
) -> jax.Array:
    """The labels [b n] of `assign_targets` for a batch before augmentation.

    Only one part of the batch is augmented and has boxes at a time; its labels need a fifth of the
    memory of its targets.
    """

    def labels_of(part: Batch) -> jax.Array:
        return assign_targets(anchors, augment_on_device(part), config, mesh).labels

    parts = config.optimizer.accumulate_steps
    labels = jax.lax.map(labels_of, split_into_parts(batch, parts))
    return labels.swapaxes(0, 1).reshape(batch.valid.shape[0], -1)


def normalizer(
    positives: jax.Array | None,
    labels: jax.Array,
    valid: jax.Array,
    anchors: tuple[np.ndarray, ...],
    config: LossConfig,
) -> tuple[jax.Array | None, jax.Array]:
    """TrainState.positives after a batch with these labels, and the divisors of its losses."""
    if positives is not None:
        positives = running_positives(positives, labels, valid)
    sizes = tuple(len(level) for level in anchors)
    return positives, divisors(labels, valid, sizes, config, positives)
