"""The training loop with stand-ins for the step: prefetching, metrics, skipped steps."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_data import Images, dataset
from small import small_config

from retinanet_jax.core.focal import FocalParams
from retinanet_jax.data.pipeline.batch import DroppedBoxes
from retinanet_jax.runtime.mesh import make_mesh, prefetch_to_device
from retinanet_jax.runtime.workdir import WorkdirError
from retinanet_jax.training import loop, meter
from retinanet_jax.training.loop import StepHooks, run_steps
from retinanet_jax.training.meter import DivergenceError, Meter, StackedMetrics, stack_metrics
from retinanet_jax.training.profiling import StepTrace
from retinanet_jax.training.run_log import RunLog
from retinanet_jax.training.setup import TrainingSetup
from retinanet_jax.training.train_state import TrainState

NAMES = ("loss", "class_loss", "box_loss", "gradient_norm", "learning_rate")


class Log(RunLog):
    """Keeps what a RunLog would write."""

    def __init__(self):
        self.active = True
        self.means, self.lines, self.messages = [], [], []

    def advance(self, step):
        pass

    def scalars(self, step, kind, values):
        self.means.append(values)

    def progress_line(self, step, text, seconds_left=0.0):
        self.lines.append(text)

    def message(self, text):
        self.messages.append(text)


class FakeTime:
    """A clock that only moves when the test moves it, in place of the loop's `time`."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Device:
    """Runs one step after the other, each `seconds` long, while the host continues."""

    def __init__(self, clock: FakeTime, seconds: float):
        self._clock, self._seconds, self.free = clock, seconds, 0.0

    def step(self) -> dict:
        self.free = max(self.free, self._clock.now) + self._seconds
        return {name: np.ones(()) for name in NAMES} | {"skipped": 0.0, "ready": self.free}


@pytest.fixture
def clock(monkeypatch):
    """A FakeTime; the metrics of a Device's step arrive when that step is done."""
    clock = FakeTime()

    def wait_for(metrics):
        values = {name: float(value) for name, value in metrics.items()}
        return values, values.pop("ready")

    monkeypatch.setattr(meter, "time", clock)
    monkeypatch.setattr(meter, "_wait_for", wait_for)
    return clock


def metered(
    clock: FakeTime,
    step_seconds: float,
    data_seconds: float,
    pause_after: int = 0,
    make: Callable[..., Meter] = Meter,
    **fields,
) -> Log:
    """The log of 12 steps with these times on the device, and of waiting for each batch."""
    config = small_config(train__steps=12, train__log_every=6, **fields)
    log, device = Log(), Device(clock, step_seconds)
    measured = make(config, log, str)
    for step in range(1, 13):
        with measured.waiting():
            clock.now += data_seconds
        before = device.free
        measured.add(step, device.step())
        clock.now = max(clock.now, before)  # it has read the metrics of the step before
        if step == pause_after:
            clock.now = device.free
            with measured.pausing():
                clock.now += 500
    with measured.pausing():
        pass
    return log


def test_batches_are_prepared_while_the_device_works():
    read, rates, steps, batch_size = [], [], 5, 4

    class Watched(Images):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    def step_fn(state, batch, focal, learning_rate):
        rates.append(learning_rate)
        step = int(state.step) + 1
        deadline = time.monotonic() + 300
        # Ends only if the images of the next batch are read before this step ends.
        while step < steps and len(read) < (step + 1) * batch_size:
            assert time.monotonic() < deadline, "no batch was prefetched"
            time.sleep(0.001)
        metrics = dict.fromkeys(NAMES, np.ones(())) | {"skipped": np.zeros(())}
        return TrainState(step, {}, {}, {}), metrics

    config = small_config(train__steps=steps, train__batch_size=batch_size)
    state = TrainState(0, {}, {}, {})
    focal = FocalParams(jnp.float32(2), None)
    setup = TrainingSetup(
        step_fn, lambda *_: None, focal, schedule=lambda step: 0.1 * step, state=state
    )
    hooks = StepHooks(lambda step: False, lambda step, state: None)
    run_steps(setup, dataset(Watched(50)), config, make_mesh(), Log(), hooks, DroppedBoxes())
    assert rates == [0.1 * step for step in range(steps)]


def test_the_metrics_of_a_step_come_to_the_host_in_one_transfer(monkeypatch):
    """Stacking works while it is traced, so it reads nothing; then the scalars are gone."""
    names, steps = (*NAMES, "skipped"), 3

    def step_fn(state, batch, focal, learning_rate):
        step = int(state.step) + 1
        values = [*map(jnp.float32, range(step, step + len(NAMES))), jnp.float32(0)]
        return TrainState(step, {}, {}, {}), dict(zip(names, values, strict=True))

    def stack_traced(metrics):
        values = jax.jit(lambda m: stack_metrics(m).values)(metrics)
        stacked = StackedMetrics(tuple(sorted(metrics)), values)  # jit sorts the names
        jax.block_until_ready(stacked.values)
        for scalar in metrics.values():
            scalar.delete()
        return stacked

    monkeypatch.setattr(loop, "stack_metrics", stack_traced)
    config = small_config(train__steps=steps, train__batch_size=4, train__log_every=1)
    first = TrainState(0, {}, {}, {})
    setup = TrainingSetup(step_fn, lambda *_: None, None, lambda step: 0.1, first)
    hooks, log = StepHooks(lambda step: step == steps, lambda step, state: None), Log()
    run_steps(setup, dataset(Images(50)), config, make_mesh(), log, hooks, DroppedBoxes())
    assert [means["box_loss"] for means in log.means] == [3, 4, 5]


def test_only_idle_devices_count_as_waiting(clock):
    # The host waits half of the time, the device never: it is still busy when a batch arrives.
    log = metered(clock, step_seconds=0.06, data_seconds=0.03)
    assert log.means[-1]["data_wait_share"] == 0
    # Batches arrive every 60 ms, the device needs 40 ms: it is idle for a third of the time.
    log = metered(clock, step_seconds=0.04, data_seconds=0.06)
    assert log.means[-1]["data_wait_share"] == pytest.approx(1 / 3)
    assert log.means[-1]["images_per_second"] == pytest.approx(4 / 0.06)


def test_a_starved_device_is_logged_once_with_a_fix(clock):
    log = metered(clock, step_seconds=0.005, data_seconds=0.03, pipeline__num_threads=1)
    assert len(log.means) == 2 and all("data wait" in line for line in log.lines)
    (text,) = log.messages
    assert "of the time for data (1 threads on" in text
    assert "config.pipeline.num_threads=0" in text or "use more cores" in text


def test_pauses_count_neither_as_waiting_nor_as_training(clock):
    log = metered(clock, step_seconds=0.02, data_seconds=0.0, pause_after=4)
    assert [means["images_per_second"] for means in log.means] == pytest.approx([4 / 0.02] * 2)
    assert all(means["data_wait_share"] == 0 for means in log.means)


def test_compilation_and_the_first_batch_are_not_counted(clock):
    """A first batch after 100 s and 30 s of compilation, then steps of 1 s, the last one of 3 s."""
    config = small_config(train__steps=4, train__log_every=4)
    log, device = Log(), Device(clock, 1.0)
    measured = Meter(config, log, str)
    for step in range(1, 5):
        with measured.waiting():
            clock.now += 100 if step == 1 else 0
        with measured.calling((64, 96)):
            clock.now += 30 if step == 1 else 0
        device._seconds = 3.0 if step == 4 else 1.0
        measured.add(step, device.step())
        clock.now = device.free
    with measured.pausing():
        pass
    (means,) = log.means
    assert means["images_per_second"] == pytest.approx(4 * 4 / 6)
    assert means["step_seconds_p50"] == pytest.approx(1.0)
    assert means["step_seconds_p95"] == pytest.approx(1 + 2 * 0.85)  # between 1 s and 3 s
    assert log.messages == ["compiled the step for 64x96 pixels in 30.0 s"]


def test_some_steps_are_traced(tmp_path, monkeypatch):
    """The trace starts before the first of its steps and ends after the last, or with the run."""
    for last, expected in ((3, ["start 2", "stop", "step 3"]), (9, ["start 2", "step 3", "stop"])):
        log, seen = Log(), []
        log.workdir = tmp_path
        monkeypatch.setattr(
            jax.profiler, "start_trace", lambda _, seen=seen: seen.append("start 2")
        )
        monkeypatch.setattr(jax.profiler, "stop_trace", lambda seen=seen: seen.append("stop"))
        with StepTrace((2, last), log) as trace:
            for step in (1, 2, 3):
                trace.start_before(step)
                if trace.ends_with(step):
                    trace.stop()
                seen += ["step 3"] * (step == 3)
        assert seen == expected and str(tmp_path / "profile") in log.messages[-1]
    with StepTrace((9, 12), log) as trace:
        trace.start_before(3)
    assert "no trace: config.train.profile_steps=9,12 begins outside the steps" in log.messages[-1]
    (tmp_path / "file").write_text("", encoding="utf-8")
    log.workdir = tmp_path / "file"
    with pytest.raises(WorkdirError, match="profile: not writable: Not a directory; leave out"):
        StepTrace((2, 3), log)


def test_one_batch_is_prefetched_and_no_more():
    made = []

    def batches():
        for i in range(4):
            made.append(i)
            yield SimpleNamespace(x=np.full(8, i))

    stream = prefetch_to_device(batches(), lambda batch: batch.x, make_mesh())
    assert next(stream).tolist() == [0] * 8
    deadline = time.monotonic() + 300
    while made != [0, 1] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1]  # one ahead, and no more
    assert [x[0] for x in stream] == [1, 2, 3]


def test_an_error_in_the_prefetch_thread_reaches_the_loop():
    def batches():
        yield SimpleNamespace(x=np.zeros(8))
        raise OSError("the disk is gone")

    stream = prefetch_to_device(batches(), lambda batch: batch.x, make_mesh())
    next(stream)
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def numbers(loss: float, skipped: float) -> dict:
    return dict.fromkeys(NAMES, np.array(loss)) | {"skipped": np.array(skipped)}


def meter_of(log: Log, max_skipped: int) -> Meter:
    config = small_config(train__steps=6, train__log_every=3, train__max_skipped=max_skipped)
    return Meter(config, log, lambda step: f"ids of {step}")


def feed(meter: Meter, skipped: list[int]) -> None:
    for step, flag in enumerate(skipped, 1):
        with meter.waiting():
            pass
        meter.add(step, stack_metrics(numbers(np.nan if flag else step, flag)))
    with meter.pausing():
        pass


def test_skipped_updates_are_logged_and_left_out_of_the_means():
    log = Log()
    feed(meter_of(log, max_skipped=3), [0, 1, 0, 1, 1, 1])
    assert [means["skipped"] for means in log.means] == [1, 3]
    assert log.means[0]["loss"] == (1 + 3) / 2 and np.isnan(log.means[1]["loss"])
    skipped = [text for text in log.messages if "skipped" in text]
    assert len(skipped) == 4
    assert "3 in a row, config.train.max_skipped=3; image ids: ids of 5" in skipped[-1]


@pytest.mark.parametrize(("allowed", "ends"), [(0, 2), (1, 3), (2, 4)])
def test_too_many_skipped_updates_in_a_row_end_the_run(allowed, ends):
    with pytest.raises(
        DivergenceError, match=rf"^step {ends}: the loss or the gradient is not finite"
    ) as error:
        feed(meter_of(Log(), allowed), [0, 1, 1, 1, 0, 1])
    assert error.value.step == ends and error.value.images == f"ids of {ends - 1}"
