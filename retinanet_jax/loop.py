"""The loop around the step: batches in, numbers out, nothing kept that is not finite."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config import Config
from retinanet_jax.data.batch import ArrayLike, Batch, DroppedBoxes
from retinanet_jax.data.pipeline import PipelineConfig, train_batches
from retinanet_jax.data.stream import HasSource, available_cores, thread_count
from retinanet_jax.logging import RunLog
from retinanet_jax.mesh import for_this_process, sent_ahead
from retinanet_jax.predict import PredictFn
from retinanet_jax.train import Focal, TrainState

STARVED_SHARE = 0.1  # of the time that the devices wait for data: above, it is said what helps


class DivergenceError(RuntimeError):
    """A loss that is not finite. The last checkpoint is from before it."""


class Learner(NamedTuple):
    """A model ready to learn: its compiled functions, and the state that they work on."""

    step_fn: Callable[[TrainState, Batch, Focal], tuple[TrainState, dict[str, ArrayLike]]]
    predict_fn: PredictFn
    focal: Focal
    state: TrainState


class _Running(NamedTuple):
    """A step that the devices may still work on."""

    step: int
    wait: tuple[float, float]  # from when to when the host waited for its batch
    numbers: Future


def run_steps(
    learner: Learner,
    dataset: HasSource,
    config: Config,
    mesh: Mesh,
    log: RunLog,
    after: Callable[[int, TrainState], None],
    dropped: DroppedBoxes,
) -> TrainState:
    """Runs the updates from the state's step to the last, and returns the state then.

    The numbers of a step are looked at while the device works on the next, so that it never waits
    for the host; but they are looked at, and found finite, before `after` sees the state.

    Args:
        after: called with the step and the state where a checkpoint or an evaluation is due.
        dropped: where boxes that do not fit into a batch are counted.
    """
    state, first = learner.state, int(learner.state.step)
    batches = train_batches(
        dataset,
        batch_size=config.train.batch_size,
        seed=config.seed,
        settings=for_this_process(config.pipeline),
        augmentation=config.augmentation,
        dropped=dropped,
    )
    meter = Meter(config, log, batches.describe)
    stream = sent_ahead(batches.iterate(first), lambda host: host.batch, mesh)
    for step in range(first + 1, config.train.steps + 1):
        with meter.waiting():
            batch = next(stream)
        state, metrics = learner.step_fn(state, batch, learner.focal)
        meter.add(step, metrics)
        if config.train.saves_after(step) or config.train.evaluates_after(step):
            with meter.pausing():
                after(step, state)
    return state


class Meter:
    """Reads the numbers of the steps, one step late, and logs their means.

    A loss that is not finite ends the run with a DivergenceError.

    `data_wait_share` is the share of the time in which the devices had no work because the next
    batch was not there. Waiting while they still work on the step before costs nothing and does not
    count, nor does the very first batch.

    Args:
        describe: tells the images of a batch from its number, which is that of its step less 1.
    """

    def __init__(self, config: Config, log: RunLog, describe: Callable[[int], str]):
        self._config, self._log, self._describe = config, log, describe
        self._pending: deque[_Running] = deque()
        self._sums: dict[str, float] = {}
        self._count = 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._since, self._done, self._idle = time.perf_counter(), math.inf, 0.0
        self._warned = False

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The time inside is spent waiting for the batch of the next step."""
        start = time.perf_counter()
        yield
        self._wait = start, time.perf_counter()

    @contextlib.contextmanager
    def pausing(self) -> Iterator[None]:
        """Waits for all steps so far and finds them finite; the time inside does not count."""
        while self._pending:
            self._read(self._pending.popleft())
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def add(self, step: int, metrics: dict[str, ArrayLike]) -> None:
        """Takes the numbers of a step that may still be running; reads those of the one before."""
        numbers = self._reader.submit(_wait_for, metrics)
        self._pending.append(_Running(step, self._wait, numbers))
        while len(self._pending) > 1:
            self._read(self._pending.popleft())

    def _read(self, running: _Running) -> None:
        values, done = running.numbers.result()
        if not np.isfinite(values["loss"]):
            raise DivergenceError(_divergence(running.step, values, self._describe))
        start, end = running.wait
        self._idle += max(0.0, end - max(start, self._done))
        self._done = done
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._log.advance(running.step)
        if running.step % self._config.train.log_every == 0 or (
            running.step == self._config.train.steps
        ):
            self._log_means(running.step, values["learning_rate"])

    def _log_means(self, step: int, learning_rate: float) -> None:
        elapsed = self._done - self._since
        means = {name: total / self._count for name, total in self._sums.items()}
        means["learning_rate"] = learning_rate
        means["images_per_second"] = self._count * self._config.train.batch_size / elapsed
        means["data_wait_share"] = share = self._idle / elapsed
        self._log.scalars(step, "train", means)
        starved = share > STARVED_SHARE
        self._log.progress_line(
            step,
            f"{means['images_per_second']:.1f} images/s  loss {means['loss']:.3f}  "
            f"(class {means['class_loss']:.3f}, box {means['box_loss']:.3f})  "
            f"lr {learning_rate:.2g}" + (f"  data wait {share:.0%}" if starved else ""),
        )
        if starved and not self._warned:
            self._warned = True
            self._log.say(_starvation(share, self._config.pipeline))
        self._sums, self._count = {}, 0
        self._since, self._idle = self._done, 0.0


def _wait_for(metrics: dict[str, ArrayLike]) -> tuple[dict[str, float], float]:
    """The numbers of a step, and the time at which the devices were done with it."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    return values, time.perf_counter()


def _starvation(share: float, settings: PipelineConfig) -> str:
    threads, cores = thread_count(settings), available_cores()
    mend = "write config.pipeline.num_threads=0 for a thread per core"
    if threads >= cores:
        mend = (
            "take more cores, or store the pictures smaller: about config.pipeline.min_side and "
            "max_side, or what these could be lowered to"
        )
    return (
        f"the devices wait {share:.0%} of the time for data, which {threads} threads prepare on "
        f"{cores} cores: {mend} (said once; data_wait_share in metrics.jsonl)"
    )


def _divergence(step: int, values: dict[str, float], describe: Callable[[int], str]) -> str:
    parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
    return (
        f"the loss of step {step} is not finite ({parts}); image ids of the batch: "
        f"{describe(step - 1)}. The last checkpoint is from before. "
        "Try a lower config.optimizer.learning_rate, more config.optimizer.warmup_steps, or "
        "config.optimizer.gradient_clip=10; with pretrained weights, check that they match "
        "config.model and config.pixels"
    )
