"""The watchdog reports the stage and the stacks of a hang, and nothing while there is progress."""

import time
from types import SimpleNamespace

import pytest

from retinanet_jax.runtime import watchdog as module
from retinanet_jax.runtime.watchdog import Watchdog

LIMIT = 0.02 / 60  # minutes; the watchdog then checks every 5 ms


class Clock(SimpleNamespace):
    """In place of the module's `time`: stands still until a test moves it."""

    def monotonic(self) -> float:
        self.reads += 1
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(now=0.0, reads=0, strftime=time.strftime)
    monkeypatch.setattr(module, "time", clock)
    return clock


def wait_for(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def check_twice(clock) -> None:
    """Waits until the watchdog has checked the clock twice."""
    before = clock.reads
    wait_for(lambda: clock.reads >= before + 2)


def hang_here(condition) -> None:
    wait_for(condition)


def test_a_hang_is_reported_with_stage_and_stacks(tmp_path, clock):
    path = tmp_path / "watchdog.txt"

    def reports() -> int:
        return path.read_text().count("Current thread") if path.exists() else 0

    with Watchdog(LIMIT, tmp_path) as watchdog:
        watchdog.beat("data")
        clock.now = 1.0
        hang_here(lambda: reports() == 1)
        clock.now = 1.9
        check_twice(clock)
        assert reports() == 1  # again once the silence has doubled
        clock.now = 2.1
        wait_for(lambda: reports() == 2)
    text = path.read_text()
    assert "no progress for 0.0 minutes, stage data" in text and "in hang_here" in text


def test_there_is_no_report_while_beats_arrive_or_if_it_is_off(tmp_path, clock):
    with Watchdog(LIMIT, tmp_path) as watchdog, Watchdog(None, tmp_path):
        for _ in range(5):
            clock.now += 0.015
            watchdog.beat("step")
            check_twice(clock)
    assert not (tmp_path / "watchdog.txt").exists()


def test_a_file_that_is_not_writable_does_not_stop_the_watchdog(tmp_path, clock):
    with Watchdog(LIMIT, tmp_path / "nowhere") as watchdog:
        clock.now = 1.0
        check_twice(clock)
        clock.now = 10.0
        check_twice(clock)
        assert watchdog._thread.is_alive()
