"""Trials in several processes of this machine, each with GPUs or cores of its own.

A worker (worker.py) takes names of trials from its standard input and answers each when the trial
has ended. It lives for many trials, so that these share compiled functions. Where its input ends,
because the sweep was stopped or killed, it saves the step under way and stops.
"""

import concurrent.futures
import glob
import itertools
import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.preemption import EXIT_CODE, Preempted, Preemption
from retinanet_jax.sweep.in_process import together
from retinanet_jax.sweep.trial import Progress, begin, fail
from retinanet_jax.sweep.trials import UNFINISHED, End, Trial


class Share(NamedTuple):
    """What a worker has of the machine; nothing of a kind: that is not divided.

    gpus: as CUDA_VISIBLE_DEVICES names them.
    cores: numbers of the CPU's.
    """

    gpus: Sequence[str]
    cores: Sequence[int]


class Workers:
    """A launcher: the next trial goes to the worker that is free first.

    Args:
        count: of the workers, among which the GPUs are divided, or where there are none the cores.

    Raises:
        ConfigError: there are fewer GPUs or cores than workers.
    """

    def __init__(self, count: int):
        self._shares = divided(visible_gpus(), own_cores(), count)

    def __call__(self, trials: list[Trial], progress: Progress) -> None:
        """Runs trials to their ends.

        Raises:
            Preempted: a signal asked to stop; the workers have stopped, too.
        """
        left: queue.SimpleQueue[Trial] = queue.SimpleQueue()
        for trial in together(trials):
            begin(trial)
            left.put(trial)
        workers = [_Worker(share, left, progress) for share in self._shares[: len(trials)]]
        with concurrent.futures.ThreadPoolExecutor(len(self._shares)) as pool, Preemption():
            try:
                running = [pool.submit(worker.run) for worker in workers]
                for worker in concurrent.futures.as_completed(running):
                    worker.result()
            finally:
                for worker in workers:
                    worker.stop()


class _Worker:
    """A process that works on trials, and another one in its place where it dies."""

    def __init__(self, share: Share, left: "queue.SimpleQueue[Trial]", progress: Progress):
        self._share, self._left, self._progress = share, left, progress
        self._process: subprocess.Popen | None = None
        self._stopped = False

    def run(self) -> None:
        """Works until no trial is left."""
        while not self._stopped:
            try:
                trial = self._left.get_nowait()
            except queue.Empty:
                break
            self._progress.begins(trial)
            self._progress.ends(trial, self._end_of(trial))
        self.stop()

    def stop(self) -> None:
        """Ends the process, after the step under way if it is at work."""
        self._stopped = True
        if self._process is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def _end_of(self, trial: Trial) -> End:
        """Has the process run a trial."""
        if self._process is None or self._process.poll() is not None:
            self._process = start(self._share, trial.workdir.parent)
        self._process.stdin.write(f"{trial.name}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()  # comes when the trial has ended, or is empty
        end = trial.end()
        if end.state != UNFINISHED:
            return end
        code = self._process.wait()
        if self._stopped or code == EXIT_CODE:
            raise Preempted("a signal")
        words = f"killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
        return fail(trial, words, f"{words}; what it said stands in log.txt")


def start(share: Share, workdir: Path) -> subprocess.Popen:
    """A worker's process, out of reach of a terminal's Ctrl-C, which is for the sweep to take."""
    command = [sys.executable, "-m", "retinanet_jax.sweep.worker", str(workdir)]
    command += [str(core) for core in share.cores]
    gpus = {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus)} if share.gpus else {}
    return subprocess.Popen(
        command,
        env=os.environ | gpus,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def divided(gpus: Sequence[str], cores: Sequence[int], count: int) -> list[Share]:
    """Shares of the machine for `count` workers, as even as they can be."""
    kind, whole = ("GPUs", gpus) if gpus else ("cores", cores)
    if whole and len(whole) < count:
        raise ConfigError(f"--workers={count}: there are {len(whole)} {kind}; write at most that")
    bounds = [len(whole) * i // count for i in range(count + 1)]
    parts = [whole[a:b] for a, b in itertools.pairwise(bounds)]
    return [Share(part, ()) if gpus else Share((), part) for part in parts]


def visible_gpus() -> list[str]:
    """NVIDIA's GPUs, found without JAX, which would take their memory."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    return [str(number) for number in range(len(glob.glob("/dev/nvidia[0-9]*")))]


def own_cores() -> list[int]:
    """Cores that this process may use; none where the system cannot pin a process to cores."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
