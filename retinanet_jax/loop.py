"""The loop around the step: batches in, numbers out, nothing kept that is not finite."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config import Config
from retinanet_jax.data.batch import Batch, HostBatch
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.pipeline import train_batches
from retinanet_jax.logging import RunLog
from retinanet_jax.mesh import for_this_process, to_devices
from retinanet_jax.predict import PredictFn
from retinanet_jax.train import Focal, TrainState


class DivergenceError(RuntimeError):
    """A loss that is not finite. The last checkpoint is from before it."""


class Learner(NamedTuple):
    """A model ready to learn: its compiled functions, and the state that they work on."""

    step_fn: Callable[[TrainState, Batch, Focal], tuple[TrainState, dict[str, jax.Array]]]
    predict_fn: PredictFn
    focal: Focal
    state: TrainState


def run_steps(
    learner: Learner,
    dataset: Dataset,
    config: Config,
    mesh: Mesh,
    log: RunLog,
    after: Callable[[int, TrainState], None],
) -> TrainState:
    """Runs the updates from the state's step to the last, and returns the state then.

    The numbers of a step are looked at while the device works on the next, so that it never waits
    for the host; but they are looked at, and found finite, before `after` sees the state.

    Args:
        after: called with the step and the state where a checkpoint or an evaluation is due.
    """
    state, first = learner.state, int(learner.state.step)
    meter = Meter(config, log)
    batches = on_devices(
        train_batches(
            dataset,
            batch_size=config.train.batch_size,
            seed=config.seed,
            start_step=first,
            settings=for_this_process(config.pipeline),
            augmentation=config.augmentation,
        ),
        mesh,
    )
    for step in range(first + 1, config.train.steps + 1):
        with meter.waiting():
            batch, image_ids = next(batches)
        state, metrics = learner.step_fn(state, batch, learner.focal)
        meter.add(step, metrics, image_ids)
        if config.train.saves_after(step) or config.train.evaluates_after(step):
            meter.drain()
            after(step, state)
            meter.restart()
    return state


def on_devices(batches: Iterator[HostBatch], mesh: Mesh) -> Iterator[tuple[Batch, np.ndarray]]:
    """Sends each batch to the devices one ahead of its use: the copy hides behind a step."""
    ahead: deque = deque()
    for host in batches:
        ahead.append((to_devices(host.batch, mesh), host.image_ids))
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead


class Meter:
    """Reads the numbers of the steps, one step late, and logs their means.

    A loss that is not finite ends the run with a DivergenceError.
    """

    def __init__(self, config: Config, log: RunLog):
        self._config, self._log = config, log
        self._pending: deque[tuple[int, dict[str, jax.Array], np.ndarray]] = deque()
        self._sums: dict[str, float] = {}
        self._count = 0
        self.restart()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def add(self, step: int, metrics: dict[str, jax.Array], image_ids: np.ndarray) -> None:
        """Takes the numbers of a step that may still be running; reads those of the one before."""
        self._pending.append((step, metrics, image_ids))
        while len(self._pending) > 1:
            self._read(*self._pending.popleft())

    def drain(self) -> None:
        """Waits for all steps so far; after it everything up to now is known to be finite."""
        while self._pending:
            self._read(*self._pending.popleft())

    def _read(self, step: int, metrics: dict[str, jax.Array], image_ids: np.ndarray) -> None:
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not np.isfinite(values["loss"]):
            raise DivergenceError(_divergence(step, values, image_ids))
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._log.advance(step)
        if step % self._config.train.log_every == 0 or step == self._config.train.steps:
            self._log_means(step, values["learning_rate"])

    def restart(self) -> None:
        """Starts the clock anew, so that time spent on something else does not count."""
        self._since, self._waited = time.perf_counter(), 0.0

    def _log_means(self, step: int, learning_rate: float) -> None:
        elapsed = time.perf_counter() - self._since
        means = {name: total / self._count for name, total in self._sums.items()}
        means["learning_rate"] = learning_rate
        means["images_per_second"] = self._count * self._config.train.batch_size / elapsed
        means["data_wait_share"] = self._waited / elapsed
        self._log.scalars(step, "train", means)
        self._log.progress_line(
            step,
            f"{means['images_per_second']:.1f} images/s  loss {means['loss']:.3f}  "
            f"(class {means['class_loss']:.3f}, box {means['box_loss']:.3f})  "
            f"lr {learning_rate:.2g}",
        )
        self._sums, self._count = {}, 0
        self.restart()


def _divergence(step: int, values: dict[str, float], image_ids: np.ndarray) -> str:
    parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
    return (
        f"the loss of step {step} is not finite ({parts}); image ids of the batch: "
        f"{', '.join(map(str, image_ids.tolist()))}. The last checkpoint is from before. "
        "Try a lower config.optimizer.learning_rate, more config.optimizer.warmup_steps, or "
        "config.optimizer.gradient_clip=10; with pretrained weights, check that they match "
        "config.model and config.pixels"
    )
