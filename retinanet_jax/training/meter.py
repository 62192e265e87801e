"""Measures the steps of a run: mean metrics, speed, MFU, time spent waiting for data, memory."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.data.pipeline.canvas import PipelineConfig
from retinanet_jax.data.pipeline.prefetch import thread_count
from retinanet_jax.runtime.cores import available_cores
from retinanet_jax.training.model_flops import ModelFlops
from retinanet_jax.training.run_log import RunLog

STARVED_SHARE = 0.1  # of the time the devices wait for data: above it, the log says what helps


class DivergenceError(RuntimeError):
    """A loss or a gradient is not finite. The last checkpoint is from before that step.

    Attributes:
        everywhere: True, because all processes of the run raise it at the same step.
        step: step whose update was skipped.
        values: the metrics of that step, by name.
        images: the image ids of the batch, by dataset.
    """

    everywhere = True

    def __init__(self, step: int, values: dict[str, float], images: str):
        self.step, self.values, self.images = step, values, images
        parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
        super().__init__(
            f"step {step}: the loss or the gradient is not finite ({parts}). Image ids of the "
            f"batch: {images}. The last checkpoint is from an earlier step. divergence/ in the "
            f"workdir shows the batch; --replay={step} repeats the step and reports each part of "
            "its loss. Try a lower config.optimizer.learning_rate, more "
            "config.optimizer.warmup_steps, or config.optimizer.gradient_clip=10. With pretrained "
            "weights, check that config.model and config.pixels match them. "
            "config.train.max_skipped=3 skips up to three such updates in a row"
        )


class StackedMetrics(NamedTuple):
    """The metrics of a step in one array [n], which reaches the host in one transfer."""

    names: tuple[str, ...]
    values: jax.Array


def stack_metrics(metrics: Mapping[str, ArrayLike]) -> StackedMetrics:
    """Stacks scalars into one array on the devices, asynchronously."""
    return StackedMetrics(tuple(metrics), _stack(tuple(metrics.values())))


@jax.jit
def _stack(values: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.stack([value.astype(jnp.float32) for value in values])


class _Running(NamedTuple):
    """A step that the devices may still be running."""

    step: int
    wait: tuple[float, float]  # start and end of the host's wait for its batch
    canvas: tuple[int, int]
    metrics: Future


class Meter:
    """Reads the metrics of the steps, one step late, and logs their means.

    Updates that are skipped because they are not finite are logged, counted, and left out of the
    means. Too many in a row raise a DivergenceError.

    `data_wait_share` is the fraction of the time in which the devices were idle because the next
    batch was not ready. The host's wait while the devices still run the previous step does not
    count, nor does the wait for the first batch. Speeds and step times exclude the wait for the
    first batch, compilation, checkpoints and evaluations.

    Args:
        config: configuration of the run.
        log: log of the run.
        describe: function from the index of a batch, its step minus 1, to its image ids.
        flops: function that returns the operations of the run; None if the peak of the devices is
            unknown.
    """

    def __init__(
        self,
        config: Config,
        log: RunLog,
        describe: Callable[[int], str],
        flops: Callable[[], ModelFlops | None] = lambda: None,
    ):
        self._config, self._log, self._describe = config, log, describe
        self._pending: deque[_Running] = deque()
        self._sums: dict[str, float] = {}
        self._count, self._skipped, self._in_a_row = 0, 0, 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._since, self._done, self._idle = time.perf_counter(), math.inf, 0.0
        self._step_start, self._step_seconds = self._since, []
        self._canvases: set[tuple[int, int]] = set()
        self._canvas, self._pixels = (0, 0), 0
        self._flops, self._warned, self._described = flops, False, False

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Context that counts its time as the wait for the batch of the next step."""
        start = time.perf_counter()
        yield
        self._wait = start, time.perf_counter()
        if math.isinf(self._done) and not self._pending:  # the first batch
            self._since = self._step_start = self._wait[1]

    @contextlib.contextmanager
    def calling(self, canvas: tuple[int, int]) -> Iterator[None]:
        """Context around the call of the step; the first call with a canvas compiles, uncounted."""
        start = time.perf_counter()
        yield
        self._canvas = canvas
        if canvas not in self._canvases:
            self._canvases.add(canvas)
            seconds = time.perf_counter() - start
            self._since += seconds
            self._step_start += seconds
            height, width = canvas
            self._log.message(f"compiled the step for {height}x{width} pixels in {seconds:.1f} s")

    @contextlib.contextmanager
    def pausing(self) -> Iterator[None]:
        """Reads the metrics of all steps so far; a context whose time is not counted."""
        while self._pending:
            self._read(self._pending.popleft())
        start = time.perf_counter()
        yield
        self._step_start = time.perf_counter()
        self._since += self._step_start - start

    def add(self, step: int, metrics: StackedMetrics) -> None:
        """Adds the metrics of a step that may still be running; reads those of the step before."""
        arrived = self._reader.submit(_wait_for, metrics)
        self._pending.append(_Running(step, self._wait, self._canvas, arrived))
        while len(self._pending) > 1:
            self._read(self._pending.popleft())

    def _read(self, running: _Running) -> None:
        values, done = running.metrics.result()
        if values.pop("skipped"):
            self._skip(running.step, values)
        else:
            self._in_a_row = 0
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        start, end = running.wait
        self._idle += max(0.0, end - max(start, self._done))
        self._step_seconds.append(done - self._step_start)
        self._done = self._step_start = done
        self._count += 1
        self._pixels += self._config.train.batch_size * math.prod(running.canvas)
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
        self._log.message(
            f"warning: step {step} skipped: loss {values['loss']:g}, gradient norm "
            f"{values['gradient_norm']:g}; {self._in_a_row} in a row, config.train.max_skipped="
            f"{allowed}; image ids: {self._describe(step - 1)}"
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
        for percent in (50, 95):
            means[f"step_seconds_p{percent}"] = float(np.percentile(self._step_seconds, percent))
        memory = peak_memory()
        if memory is not None:
            means["peak_memory_gib"] = memory / 2**30
        utilization = self._utilization(elapsed)
        if utilization is not None:
            means["mfu"] = utilization
        self._log.scalars(step, "train", means)
        starved = share > STARVED_SHARE
        self._log.progress_line(
            step,
            f"{means['images_per_second']:.1f} images/s  loss {means['loss']:.3f}  "
            f"(class {means['class_loss']:.3f}, box {means['box_loss']:.3f})  "
            f"lr {learning_rate:.2g}"
            + (f"  {memory / 2**30:.1f} GiB" if memory is not None else "")
            + (f"  MFU {utilization:.0%}" if utilization is not None else "")
            + (f"  data wait {share:.0%}" if starved else ""),
            seconds_left=(self._config.train.steps - step) * elapsed / self._count,
        )
        if starved and not self._warned:
            self._warned = True
            self._log.message(_starvation(share, self._config.pipeline))
        self._sums, self._count, self._skipped, self._step_seconds = {}, 0, 0, []
        self._since, self._idle, self._pixels = self._done, 0.0, 0

    def _utilization(self, seconds: float) -> float | None:
        """MFU of the steps since the last line; the first call also logs what it is relative to."""
        flops = self._flops()
        if flops is None:
            return None
        if not self._described:
            self._described = True
            self._log.message(flops.summary(self._canvas))
        return flops.utilization(self._pixels, seconds)


def peak_memory() -> int | None:
    """Returns the peak bytes in use on a device of this process; None if JAX does not count."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [
        found["peak_bytes_in_use"] for found in stats if found and "peak_bytes_in_use" in found
    ]
    return max(peaks, default=None)


def _wait_for(metrics: StackedMetrics) -> tuple[dict[str, float], float]:
    """The metrics of a step, and the time at which the devices finished it."""
    values = dict(zip(metrics.names, np.asarray(metrics.values).tolist(), strict=True))
    return values, time.perf_counter()


def _starvation(share: float, settings: PipelineConfig) -> str:
    threads, cores = thread_count(settings), available_cores()
    fix = "set config.pipeline.num_threads=0 for one thread per core"
    if threads >= cores:
        fix = (
            "use more cores, store the images at sizes close to config.pipeline.min_side and "
            "max_side, or lower these"
        )
    return (
        f"the devices wait {share:.0%} of the time for data ({threads} threads on {cores} cores): "
        f"{fix}. Logged once; data_wait_share in metrics.jsonl has the current value"
    )
