"""Contestants: processes bound to given cores that do one round of work on request.

This module imports only the standard library, so that peers can use it in an environment without
this package.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent


class Contestant:
    """`python -m benchmarks.NAME ARGUMENTS` on the given cores; a context manager.

    Args:
        name: module of this package.
        arguments: of the module.
        cores: CPU cores that the process may use.
        python: interpreter.
        platforms: JAX_PLATFORMS; '' takes the device that JAX finds, 'cpu' hides all GPUs.
        xla_flags: appended to XLA_FLAGS.

    Raises:
        MissingPeer: it ends before it is ready, for example because a package is missing.
    """

    def __init__(
        self,
        name: str,
        *arguments: str,
        cores: Iterable[int],
        python: str = sys.executable,
        platforms: str = "cpu",
        xla_flags: str = "",
    ):
        command = [python, "-m", f"benchmarks.{name}", *arguments]
        # Measures the package beside this script, installed or not.
        paths = [str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
        environment = {"JAX_PLATFORMS": platforms, "TF_CPP_MIN_LOG_LEVEL": "3"}
        # Contestants share a GPU; each may use nearly all of its memory.
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.95"
        if platforms == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if xla_flags:
            before = os.environ.get("XLA_FLAGS", "")
            environment["XLA_FLAGS"] = f"{before} {xla_flags}"
        # A pipe would fill up, because it is read only after an error.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        with _bound_to(cores):
            self._process = subprocess.Popen(
                command,
                cwd=SCRIPTS,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        self._answer()

    def round(self) -> dict[str, float]:
        """Requests one round of work and returns its measurements.

        Raises:
            MissingPeer: it ended, for example because memory ran out.
        """
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return json.loads(self._answer())

    def _answer(self) -> str:
        """The next line of its output."""
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines() or ["no reason given"]
            raise MissingPeer(f"{' '.join(self._process.args[1:3])}: {lines[-1]}")
        return line

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, which ends it
        self._errors.close()


@contextlib.contextmanager
def _bound_to(cores: Iterable[int]) -> Iterator[None]:
    """Processes that this thread starts inside inherit the cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class MissingPeer(RuntimeError):
    """A contestant that cannot take part."""


def take_turns(
    entrants: dict[str, Callable[[], Contestant]], rounds: int
) -> dict[str, dict[str, list]]:
    """Measurements of each contestant: a list over the rounds by the name of the measure.

    All start and do one round that does not count, then one round each in turn. A contestant that
    is missing is named and left out.

    Raises:
        MissingPeer: 'ours' is missing.
    """
    with contextlib.ExitStack() as stack:
        present = {}
        for name, start in entrants.items():
            try:
                present[name] = stack.enter_context(start())
            except MissingPeer as error:
                if name == "ours":
                    raise
                print(f"left out: {name} ({error}); --peer_python names a Python that has it")
        found = [
            {name: contestant.round() for name, contestant in present.items()}
            for _ in range(rounds + 1)
        ][1:]
    return {
        name: {measure: [one[name][measure] for one in found] for measure in found[0][name]}
        for name in present
    }


def serve(work: Callable[[], dict[str, float]]) -> None:
    """Runs in the contestant: does `work` once per line of its input, until the input ends.

    If the result of `work` has no memory_mb, the peak of the process is added.
    """
    print("ready", flush=True)
    for _ in sys.stdin:
        result = work()
        print(json.dumps({"memory_mb": peak_memory("self") / 1e6, **result}), flush=True)


def peak_memory(pid: int | str) -> int:
    """Peak resident memory of a process in bytes.

    ru_maxrss is unsuitable: it includes the memory of the process that started this one.
    """
    lines = (Path("/proc") / str(pid) / "status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def time_calls(function: Callable[[], object], count: int = 1) -> dict[str, float]:
    """CPU time of the process and wall time of one call, which returns when the work is done."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        function()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"cpu_s": cpu / count, "wall_s": wall / count}


def time_stream(batches: Iterator, batch_size: int, timed: int = 8) -> dict[str, float]:
    """CPU and wall time per image of a stream that prefetches batches in its own threads.

    Waits before and after until the stream has filled its buffer, so that the CPU time belongs to
    as many batches as were taken. The wall time is that of the last `timed` batches; the prefetched
    ones are taken before the clock starts.
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
    """CPU time of `next` in the calling thread when a batch is ready."""
    times = []
    for _ in range(count):
        _wait_until_idle()
        start = time.thread_time()
        batch = next(batches)
        times.append(time.thread_time() - start)
        del batch
    return {"main_s": sorted(times)[count // 2]}


def _wait_until_idle(most: float = 5.0) -> None:
    deadline = time.monotonic() + most
    while time.monotonic() < deadline:
        before = time.process_time()
        time.sleep(0.05)
        if time.process_time() - before < 0.001:
            return
