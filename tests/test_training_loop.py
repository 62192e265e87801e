"""The loop with steps that only sleep: what is counted as waiting for data, and what is said."""

import time
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from image_data import Images, dataset
from small import small_config

from retinanet_jax.data.pipeline.batch import DroppedBoxes
from retinanet_jax.runtime.mesh import make_mesh, prefetch_to_device
from retinanet_jax.training.loop import DivergenceError, Hooks, Meter, run_steps
from retinanet_jax.training.run_log import RunLog
from retinanet_jax.training.setup import TrainingSetup
from retinanet_jax.training.step import FocalParams, TrainState

NAMES = ("loss", "class_loss", "box_loss", "gradient_norm", "learning_rate")


class Log(RunLog):
    """Keeps what a RunLog would write."""

    def __init__(self):
        self.means, self.lines, self.said = [], [], []

    def advance(self, step):
        pass

    def scalars(self, step, kind, values):
        self.means.append(values)

    def progress_line(self, step, text):
        self.lines.append(text)

    def say(self, text):
        self.said.append(text)


class Later(np.ndarray):
    """A number that a device has ready at a certain time."""

    def __new__(cls, ready: float):
        number = np.ones(()).view(cls)
        number.ready = ready
        return number

    def __array__(self, *_, **__):
        time.sleep(max(0.0, self.ready - time.perf_counter()))
        return np.ones(())


class Device:
    """Works on one step after the other, each `seconds` long, while the host goes on."""

    def __init__(self, seconds: float):
        self._seconds, self._free = seconds, 0.0

    def step(self) -> dict:
        self._free = max(self._free, time.perf_counter()) + self._seconds
        return {name: Later(self._free) for name in NAMES} | {"skipped": np.zeros(())}


def metered(step_seconds: float, data_seconds: float, steps: int = 12, **fields) -> Log:
    """The log of steps that a device takes so long for, on batches that are waited for so long."""
    log, device = Log(), Device(step_seconds)
    meter = Meter(small_config(train__steps=steps, train__log_every=6, **fields), log, str)
    for step in range(1, steps + 1):
        with meter.waiting():
            time.sleep(data_seconds)
        meter.add(step, device.step())
    with meter.pausing():
        pass
    return log


def test_a_step_longer_than_its_data_takes_never_waits():
    """The real pipeline beside a step of 100 ms: it reads, resizes and sends in less."""
    config = small_config(train__steps=25, train__log_every=1, train__checkpoint_every=99)
    log, state = Log(), TrainState(0, {}, {}, {})

    def step_fn(state, batch, focal):
        time.sleep(0.1)
        return state, dict.fromkeys(NAMES, np.ones(())) | {"skipped": np.zeros(())}

    setup = TrainingSetup(step_fn, lambda *_: None, FocalParams(jnp.float32(2), None), state)
    hooks = Hooks(lambda step: False, lambda step, state: None)
    run_steps(setup, dataset(Images(50)), config, make_mesh(), log, hooks, DroppedBoxes())
    # The lower quartile: other work on the same cores disturbs many of the steps, never all.
    assert np.percentile([means["data_wait_share"] for means in log.means], 25) < 0.01


def test_waiting_while_the_device_works_is_no_waiting():
    # The host waits half of the time, the device never: it has as long to go when a batch comes.
    log = metered(step_seconds=0.06, data_seconds=0.03)
    assert log.means[-1]["data_wait_share"] < 0.05
    # Batches come every 60 ms to a device that needs 40 ms: it stands still for a third.
    log = metered(step_seconds=0.04, data_seconds=0.06)
    assert log.means[-1]["data_wait_share"] == pytest.approx(1 / 3, abs=0.2)
    assert log.means[-1]["images_per_second"] == pytest.approx(4 / 0.06, rel=0.4)


def test_a_starved_device_is_spoken_of_once():
    log = metered(step_seconds=0.005, data_seconds=0.03, pipeline__num_threads=1)
    assert len(log.means) == 2 and all("data wait" in line for line in log.lines)
    (text,) = log.said
    assert "of the time for data, which 1 threads prepare on" in text
    assert "config.pipeline.num_threads=0" in text or "take more cores" in text


def test_pauses_count_neither_as_waiting_nor_as_training():
    log, device = Log(), Device(0.02)
    meter = Meter(small_config(train__steps=6, train__log_every=6), log, str)
    for step in range(1, 7):
        with meter.waiting():
            pass
        meter.add(step, device.step())
        if step == 4:
            with meter.pausing():
                time.sleep(0.5)
    with meter.pausing():
        pass
    assert log.means[0]["images_per_second"] == pytest.approx(4 / 0.02, rel=0.45)
    assert log.means[0]["data_wait_share"] < 0.05


def test_the_next_batch_is_fetched_and_sent_while_the_last_one_is_used():
    made = []

    def batches():
        for i in range(4):
            made.append(i)
            yield SimpleNamespace(x=np.full(8, i))

    stream = prefetch_to_device(batches(), lambda batch: batch.x, make_mesh())
    assert next(stream).tolist() == [0] * 8
    deadline = time.monotonic() + 5
    while made != [0, 1] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1]  # one ahead, and no more
    assert [x[0] for x in stream] == [1, 2, 3]


def test_a_failure_in_the_thread_reaches_the_loop():
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
        meter.add(step, numbers(np.nan if flag else step, flag))
    with meter.pausing():
        pass


def test_skipped_updates_are_told_and_counted_and_no_part_of_the_means():
    log = Log()
    feed(meter_of(log, max_skipped=3), [0, 1, 0, 1, 1, 1])
    assert [means["skipped"] for means in log.means] == [1, 3]
    assert log.means[0]["loss"] == (1 + 3) / 2 and np.isnan(log.means[1]["loss"])
    said = [text for text in log.said if "is left out" in text]
    assert len(said) == 4 and "3 in a row of 3 allowed; image ids: ids of 5" in said[-1]


@pytest.mark.parametrize(("allowed", "ends"), [(0, 2), (1, 3), (2, 4)])
def test_too_many_in_a_row_end_the_run(allowed, ends):
    with pytest.raises(DivergenceError, match=f"step {ends} is not finite") as error:
        feed(meter_of(Log(), allowed), [0, 1, 1, 1, 0, 1])
    assert error.value.step == ends and error.value.images == f"ids of {ends - 1}"
