"""A range test of the learning rate (Smith 2017, arXiv 1506.01186, section 3.3)."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from retinanet_jax.config.settings import Config, ConfigError
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.data.pipeline.batch import DroppedBoxes
from retinanet_jax.runtime.mesh import for_this_process, make_mesh, prefetch_to_device
from retinanet_jax.training.loop import make_batches
from retinanet_jax.training.optimizer import scaled_learning_rate
from retinanet_jax.training.resolve_auto import resolve_auto
from retinanet_jax.training.run_checks import check_has_objects
from retinanet_jax.training.setup import CompiledFunctions, make_setup

SMOOTHING = 0.9  # decay of the moving average of the losses
DIVERGED = 4.0  # times the lowest smoothed loss


class RangeTest(NamedTuple):
    """The losses of a run whose learning rate rises.

    Attributes:
        rates: values of config.optimizer.learning_rate, one per step.
        losses: loss of each step.
        smoothed: moving average of the losses.
        suggestion: a tenth of the rate with the lowest smoothed loss, rounded to one digit; None if
            the loss did not fall.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None


def learning_rate_test(
    config: Config,
    *,
    dataset: Dataset | None = None,
    steps: int = 100,
    lowest: float = 1e-6,
    highest: float = 1.0,
    log: Callable[[str], None] = print,
    functions: CompiledFunctions | None = None,
) -> RangeTest:
    """Trains with a learning rate that rises by equal factors, until the loss diverges.

    Args:
        config: configuration of a run; its learning rate, warm-up, schedule and length are not
            used. Nothing is written.
        dataset: dataset to train on; None: the dataset of the config.
        steps: number of updates, at least 10.
        lowest, highest: first and last value of config.optimizer.learning_rate.
        log: function that is called with each message.
        functions: compiled functions of the config, if they exist already; they do not depend on
            the rate.

    Raises:
        ConfigError: invalid limits.
        DataError, WeightsError: as in a training run.
    """
    if steps < 10 or not 0 < lowest < highest:
        raise ConfigError(
            f"steps {steps}, rates {lowest:g} to {highest:g}: write at least 10 steps, and two "
            "increasing rates above 0"
        )
    mesh = make_mesh()
    dataset = load_training_set(config.data) if dataset is None else dataset
    check_has_objects(dataset)
    config, _ = resolve_auto(config, dataset, mesh, log=log)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=1.0)
    config = dataclasses.replace(config, optimizer=optimizer)
    # The rate of a batch of this size, by the rate in the config.
    scaling = scaled_learning_rate(optimizer, config.train.batch_size)
    rates = np.geomspace(lowest, highest, steps)
    setup = make_setup(config, dataset.categories, mesh, log, functions, train_set=dataset)
    batches = make_batches(dataset, config, for_this_process(config.pipeline), DroppedBoxes())
    state, losses = setup.state, []
    stream = prefetch_to_device(batches.iterate(), lambda host: host.batch, mesh)
    with contextlib.closing(stream):
        for step, rate in enumerate(rates, 1):
            scaled = np.float32(scaling * rate)
            state, metrics = setup.step_fn(state, next(stream), setup.focal, scaled)
            losses.append(float(metrics["loss"]))
            if step % 10 == 0:
                log(f"step {step}/{steps}: rate {rate:.2g}, {losses[-1]:.3f}")
            if not np.isfinite(losses[-1]) or has_diverged(losses):
                break
    finite = [loss for loss in losses if np.isfinite(loss)]
    rates, smoothed = rates[: len(finite)].tolist(), smooth(finite)
    return RangeTest(rates, finite, smoothed, suggest(rates, smoothed))


def smooth(losses: Sequence[float]) -> list[float]:
    """Returns the moving average of the losses, corrected for the bias towards its start."""
    total, found = 0.0, []
    for step, loss in enumerate(losses, 1):
        total = SMOOTHING * total + (1 - SMOOTHING) * loss
        found.append(total / (1 - SMOOTHING**step))
    return found


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the smoothed loss has risen far above its lowest value."""
    smoothed = smooth(losses)
    return smoothed[-1] > DIVERGED * min(smoothed)


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """Returns a tenth of the rate with the lowest smoothed loss; None if the loss hardly fell."""
    if not smoothed or min(smoothed) > 0.95 * smoothed[0]:
        return None
    return float(f"{rates[int(np.argmin(smoothed))] / 10:.0e}")
