"""The loop around the step: batches in, numbers out; too many that are not finite end it."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.data.pipeline.batch import ArrayLike, DroppedBoxes
from retinanet_jax.data.pipeline.batches import PipelineConfig, train_batches
from retinanet_jax.data.pipeline.stream import Batches, HasSource, available_cores, thread_count
from retinanet_jax.runtime.mesh import for_this_process, prefetch_to_device
from retinanet_jax.training.run_log import RunLog
from retinanet_jax.training.setup import TrainingSetup
from retinanet_jax.training.step import TrainState

STARVED_SHARE = 0.1  # of the time that the devices wait for data: above, it is said what helps


class DivergenceError(RuntimeError):
    """A loss or a gradient that is not finite. The last checkpoint is from before it.

    Attributes:
        everywhere: all processes of the run raise it at the same step.
        step: the update that was left out.
        values: the numbers of that step, by name.
        images: the ids of the batch, by dataset.
    """

    everywhere = True

    def __init__(self, step: int, values: dict[str, float], images: str):
        self.step, self.values, self.images = step, values, images
        parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
        super().__init__(
            f"the loss or the gradient of step {step} is not finite ({parts}); image ids of the "
            f"batch: {images}. The last checkpoint is from before. See divergence/ in the workdir; "
            f"--replay={step} tells what each part of the loss was. "
            "Try a lower config.optimizer.learning_rate, more config.optimizer.warmup_steps, or "
            "config.optimizer.gradient_clip=10; with pretrained weights, check that they match "
            "config.model and config.pixels; config.train.max_skipped=3 leaves out up to three "
            "such updates in a row"
        )


class Hooks(NamedTuple):
    """What surrounds the steps.

    due: whether `after` is called after a step. With several processes, each must say the same.
    after: called with a step and the state then, when all steps so far are found finite.
    beat: called with the name of the stage that begins.
    """

    due: Callable[[int], bool]
    after: Callable[[int, TrainState], None]
    beat: Callable[[str], None] = lambda stage: None


class _Running(NamedTuple):
    """A step that the devices may still work on."""

    step: int
    wait: tuple[float, float]  # from when to when the host waited for its batch
    numbers: Future


def run_steps(
    setup: TrainingSetup,
    dataset: HasSource,
    config: Config,
    mesh: Mesh,
    log: RunLog,
    hooks: Hooks,
    dropped: DroppedBoxes,
) -> TrainState:
    """Runs the updates from the state's step to the last, and returns the state then.

    The numbers of a step are looked at while the device works on the next, so that it never waits
    for the host; but they are looked at before `hooks.after` sees the state.

    Args:
        dropped: where boxes that do not fit into a batch are counted.

    Raises:
        DivergenceError: more than config.train.max_skipped updates in a row were not finite.
    """
    state, first = setup.state, int(setup.state.step)
    batches = make_batches(dataset, config, for_this_process(config.pipeline), dropped)
    meter = Meter(config, log, batches.describe)
    stream = prefetch_to_device(batches.iterate(first), lambda host: host.batch, mesh)
    for step in range(first + 1, config.train.steps + 1):
        hooks.beat("data")
        with meter.waiting():
            batch = next(stream)
        hooks.beat("step")
        state, metrics = setup.step_fn(state, batch, setup.focal)
        meter.add(step, metrics)
        if hooks.due(step):
            with meter.pausing():
                hooks.after(step, state)
    return state


def make_batches(
    dataset: HasSource, config: Config, settings: PipelineConfig, dropped: DroppedBoxes
) -> Batches:
    """The batches of a run; that of update `step` is `batches[step - 1]`.

    `settings` is the section pipeline: as it is, for whole batches, or `for_this_process`.
    """
    return train_batches(
        dataset,
        batch_size=config.train.batch_size,
        seed=config.seed,
        settings=settings,
        augmentation=config.augmentation,
        dropped=dropped,
    )


class Meter:
    """Reads the numbers of the steps, one step late, and logs their means.

    Updates that were left out because they are not finite are told and counted (`skipped`), and no
    part of the means; too many in a row end the run with a DivergenceError.

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
        self._count, self._skipped, self._in_a_row = 0, 0, 0
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
        if values.pop("skipped"):
            self._skip(running.step, values)
        else:
            self._in_a_row = 0
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        start, end = running.wait
        self._idle += max(0.0, end - max(start, self._done))
        self._done = done
        self._count += 1
        self._log.advance(running.step)
        if running.step % self._config.train.log_every == 0 or (
            running.step == self._config.train.steps
        ):
            self._log_means(running.step, values["learning_rate"])

    def _skip(self, step: int, values: dict[str, float]) -> None:
        self._skipped, self._in_a_row = self._skipped + 1, self._in_a_row + 1
        allowed = self._config.train.max_skipped
        if self._in_a_row > allowed:
            raise DivergenceError(step, values, self._describe(step - 1))
        self._log.say(
            f"warning: step {step} is not finite (loss {values['loss']:g}, gradient norm "
            f"{values['gradient_norm']:g}) and is left out, {self._in_a_row} in a row of "
            f"{allowed} allowed; image ids: {self._describe(step - 1)}"
        )

    def _log_means(self, step: int, learning_rate: float) -> None:
        elapsed = self._done - self._since
        finite = self._count - self._skipped
        means = {name: total / finite for name, total in self._sums.items()}
        if not finite:
            means = dict.fromkeys(("loss", "class_loss", "box_loss"), math.nan)
        means["skipped"] = self._skipped
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
        self._sums, self._count, self._skipped = {}, 0, 0
        self._since, self._idle = self._done, 0.0


def _wait_for(metrics: dict[str, ArrayLike]) -> tuple[dict[str, float], float]:
    """The numbers of a step, and the time at which the devices were done with it."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    return values, time.perf_counter()


def _starvation(share: float, settings: PipelineConfig) -> str:
    threads, cores = thread_count(settings), available_cores()
    fix = "write config.pipeline.num_threads=0 for a thread per core"
    if threads >= cores:
        fix = (
            "take more cores, or store the images smaller: about config.pipeline.min_side and "
            "max_side, or what these could be lowered to"
        )
    return (
        f"the devices wait {share:.0%} of the time for data, which {threads} threads prepare on "
        f"{cores} cores: {fix} (said once; data_wait_share in metrics.jsonl)"
    )
