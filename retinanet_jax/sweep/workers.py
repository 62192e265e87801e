"""A launcher of sweeps: processes of this machine, by submitit."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from retinanet_jax.runtime.preemption import Preemption
from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.sweep.in_process import by_compilation
from retinanet_jax.sweep.jobs import FOLDER, Job, Jobs, Work, absolute
from retinanet_jax.sweep.machine import divide, own_cores, share_machine, visible_gpus
from retinanet_jax.sweep.run_trial import Progress
from retinanet_jax.sweep.trials import Trial

WEEK = 7 * 24 * 60  # minutes; submitit gives local jobs a time limit


class Workers(Jobs):
    """`count` processes of this machine, each with GPUs or cores of its own.

    They stop with the sweep: after the step under way, which is saved, also if it is killed.

    Raises:
        ConfigError: there are fewer GPUs or cores than workers.
    """

    def __init__(self, workdir: Path, count: int, poll: float = 0.5):
        self._shares = share_machine(visible_gpus(), own_cores(), count)
        self._leash = workdir.resolve() / FOLDER / "sweep.pid"
        self._started: list[Job] = []
        super().__init__("local", workdir / FOLDER, {"timeout_min": WEEK}, poll)

    def __call__(self, trials: list[Trial], progress: Progress) -> None:
        """Runs trials to their ends.

        Raises:
            Preempted: a signal asked to stop; the workers have stopped, too.
        """
        write_whole(self._leash, str(os.getpid()))
        works = [Work(share, self._leash) for share in self._shares]
        trials = absolute(by_compilation(trials))
        with Preemption():
            try:
                self._wait(self._submit(works, divide(trials, len(works))), progress)
            finally:
                self._leash.unlink(missing_ok=True)
                while self._running(self._started):
                    time.sleep(0.1)

    def _submit(self, works: Sequence[Work], shares: Sequence[Sequence[Trial]]) -> list[Job]:
        with _ignoring_interrupts():
            jobs = super()._submit(works, shares)
        self._started += jobs
        return jobs

    def _running(self, jobs: Sequence[Job]) -> set[str]:
        return {one.job.job_id for one in jobs if not one.job.done()}


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes started inside ignore SIGINT: at Ctrl-C, submitit's would kill their jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
