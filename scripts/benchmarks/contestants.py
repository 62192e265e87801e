"""Contestants: programs of their own, bound to some cores, that do a round of work when asked.

This module imports nothing but the standard library, so that peers can use it in an environment
without this package.
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

    `platforms` is JAX's setting of that name: '' is what it finds; 'cpu' hides GPUs from all.
    `xla_flags` are appended to XLA_FLAGS.

    Raises:
        MissingPeer: it ends before it is ready, for lack of a package for example.
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
        # Ours need not be installed: what is measured lies beside this script.
        paths = [str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
        environment = {"JAX_PLATFORMS": platforms, "TF_CPP_MIN_LOG_LEVEL": "3"}
        # Contestants share a GPU, and one alone may have nearly all of it.
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.95"
        if platforms == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if xla_flags:
            before = os.environ.get("XLA_FLAGS", "")
            environment["XLA_FLAGS"] = f"{before} {xla_flags}"
        # Not a pipe, which would fill up, for nobody reads it meanwhile.
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
        """Has it do one round of work; returns what it measured.

        Raises:
            MissingPeer: it ended, for lack of memory for example.
        """
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return json.loads(self._answer())

    def _answer(self) -> str:
        """The next line that it writes."""
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
        self._process.communicate()  # closes its input, at which it ends
        self._errors.close()


@contextlib.contextmanager
def _bound_to(cores: Iterable[int]) -> Iterator[None]:
    """What is started inside, by this thread, inherits the cores."""
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
    """What each contestant measured, a list over the rounds by the name of the measure.

    All are started, do a round that does not count, then one round each in turn. One that is
    missing is named and left out.

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
    """Of the contestant: does `work` whenever it is asked, until its input ends.

    Where `work` does not tell its memory_mb, it is the peak of the process.
    """
    print("ready", flush=True)
    for _ in sys.stdin:
        result = work()
        print(json.dumps({"memory_mb": peak_memory("self") / 1e6, **result}), flush=True)


def peak_memory(pid: int | str) -> int:
    """Bytes that a process has had resident at most.

    Linux's ru_maxrss would not do: what it was before the program began, in the process that
    started it, counts there.
    """
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def time_calls(function: Callable[[], object], count: int = 1) -> dict[str, float]:
    """CPU time of the process and wall time of one call; `function` returns when it is done."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        function()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"cpu_s": cpu / count, "wall_s": wall / count}


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
    deadline = time.monotonic() + most
    while time.monotonic() < deadline:
        before = time.process_time()
        time.sleep(0.05)
        if time.process_time() - before < 0.001:
            return
