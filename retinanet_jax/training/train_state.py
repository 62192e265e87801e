"""The state of a training run: what a checkpoint contains."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from retinanet_jax.core.loss_normalizer import FIRST_POSITIVES


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
        """Returns the variables for prediction: the moving average, if it is kept."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    variables: Any,
    optimizer: optax.GradientTransformation,
    *,
    keep_average: bool,
    keep_positives: bool = False,
) -> TrainState:
    """Returns the state before the first update.

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
