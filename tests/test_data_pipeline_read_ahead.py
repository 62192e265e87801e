"""Reading ahead: order, errors, and an end that waits for nobody."""

import concurrent.futures.thread
import subprocess
import sys
import threading
import time

import pytest

from retinanet_jax.data.pipeline.read_ahead import read_ahead


def slow_for_even(number):
    time.sleep(0.01 * (number % 2 == 0))
    return 10 * number


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (4, 3), (3, 50)])
def test_results_come_in_order(threads, ahead):
    found = list(read_ahead(range(20), slow_for_even, threads=threads, ahead=ahead))
    assert found == [10 * number for number in range(20)]
    assert list(read_ahead([], slow_for_even, threads=threads, ahead=ahead)) == []


def test_items_are_taken_in_advance_and_no_further():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    for count, _ in enumerate(read_ahead(items(), lambda x: x, threads=2, ahead=5)):
        assert len(taken) <= count + 1 + 5
    assert len(taken) == 100


def test_errors_are_raised_at_their_turn():
    stream = read_ahead([4, 2, 0, 1], lambda x: 8 // x, threads=3, ahead=4)
    assert [next(stream), next(stream)] == [2, 4]
    with pytest.raises(ZeroDivisionError):
        next(stream)

    def items():
        yield 1
        raise OSError("gone")

    stream = read_ahead(items(), lambda x: x, threads=3, ahead=4)
    assert next(stream) == 1
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_no_work_is_under_way_when_an_error_is_raised():
    under_way = []

    def work(number):
        if number == 1:
            raise OSError("full")
        under_way.append(number)
        time.sleep(0.2)
        under_way.remove(number)

    with pytest.raises(OSError, match="full"):
        list(read_ahead(range(100), work, threads=4, ahead=8))
    assert not under_way


def test_the_end_of_a_program_waits_for_what_is_under_way(tmp_path):
    code = f"""
import pathlib, time
from retinanet_jax.data.pipeline.read_ahead import read_ahead

def work(number):
    if number:
        time.sleep(0.5)
        pathlib.Path({str(tmp_path)!r}, "done").touch()

stream = read_ahead(range(10**6), work, threads=2, ahead=2)
next(stream)
time.sleep(0.1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert (tmp_path / "done").exists()


def test_closing_leaves_out_what_has_not_begun_and_ends_the_threads():
    before, begun = set(threading.enumerate()), []

    def work(number):
        begun.append(number)
        time.sleep(0.05)

    stream = read_ahead(iter(range(10**9)), work, threads=1, ahead=100)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before and len(begun) <= 3


def test_closing_takes_no_lock():
    """The garbage collector may close a stream in code that holds the lock of all thread pools."""
    stream = read_ahead(range(10**6), slow_for_even, threads=2, ahead=5)
    next(stream)

    def close():
        with concurrent.futures.thread._global_shutdown_lock:
            stream.close()

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
