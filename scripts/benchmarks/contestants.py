"""Contestants: programs of their own, bound to some cores, that do a round of work when asked.

This module imports nothing but the standard library, so that peers can use it in an environment
without this package.
"""

import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent


class Contestant:
    """`python -m benchmarks.NAME ARGUMENTS` on the given cores; a context manager.

    Raises:
        MissingPeer: it ends before it is ready, for lack of a package for example.
    """

    def __init__(self, name: str, *arguments: str, cores: range, python: str = sys.executable):
        command = [python, "-m", f"benchmarks.{name}", *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=SCRIPTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            env={**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        if not self._process.stdout.readline():
            lines = self._process.communicate()[1].strip().splitlines() or ["no reason given"]
            raise MissingPeer(f"{' '.join(command[1:3])}: {lines[-1]}")

    def round(self) -> dict[str, float]:
        """Has it do one round of work; returns what it measured."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, at which it ends


class MissingPeer(RuntimeError):
    """A contestant that cannot take part."""


def serve(work: Callable[[], dict[str, float]]) -> None:
    """Of the contestant: does `work` whenever it is asked, until its input ends."""
    print("ready", flush=True)
    for _ in sys.stdin:
        result = work()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps({**result, "memory_mb": memory}), flush=True)


def time_stream(batches: Iterator, batch_size: int, timed: int = 8) -> dict[str, float]:
    """Takes batches from a stream that makes some ahead, in threads of its own.

    Before and after, the stream is left alone until it has made all it makes ahead, so that the CPU
    time is that of as many batches as were taken. The wall time is that of the last `timed` ones:
    those that had been made ahead are taken before the clock starts.
    """
    skipped = 4
    _wait_until_idle()
    cpu = time.process_time()
    for _ in range(skipped):
        next(batches)
    wall = time.perf_counter()
    for _ in range(timed):
        next(batches)
    wall = time.perf_counter() - wall
    _wait_until_idle()
    cpu = time.process_time() - cpu
    return {
        "cpu_s": cpu / ((skipped + timed) * batch_size),
        "wall_s": wall / (timed * batch_size),
    }


def time_handing_over(batches: Iterator, count: int = 5) -> dict[str, float]:
    """The CPU time that `next` takes of the thread that calls it, where a batch is ready."""
    times = []
    for _ in range(count):
        _wait_until_idle()
        start = time.thread_time()
        batch = next(batches)
        times.append(time.thread_time() - start)
        del batch
    return {"main_s": sorted(times)[count // 2]}


def _wait_until_idle(most: float = 5.0) -> None:
    gc.collect()
    deadline = time.monotonic() + most
    while time.monotonic() < deadline:
        before = time.process_time()
        time.sleep(0.05)
        if time.process_time() - before < 0.001:
            return
