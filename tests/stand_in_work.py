"""What jobs run in tests of sweeps instead of training; imported by submitit's processes."""

import os
import signal
import time

from retinanet_jax.runtime.preemption import Preempted, Preemption
from retinanet_jax.sweep import jobs
from retinanet_jax.sweep.trials import FINISHED, End


def finish(trial, cache):
    """Finishes at once; at gamma 3 the process is killed, as if the memory were full."""
    if trial.settings["loss.gamma"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    summary = {"AP": 0.5, "process": float(os.getpid())}
    summary["cores"] = float(len(os.sched_getaffinity(0)))
    End(FINISHED, summary).write(trial.workdir)


def score(trial, cache):
    """Takes a moment; AP is a tenth of gamma."""
    time.sleep(0.3)
    End(FINISHED, {"AP": trial.settings["loss.gamma"] / 10}).write(trial.workdir)


def run_until_stopped(trial, cache):
    """Runs until a signal, then "saves"."""
    with Preemption():
        (trial.workdir / "started").touch()
        try:
            time.sleep(600)
        except Preempted:
            (trial.workdir / "saved").touch()
            raise


class QuickWork(jobs.Work):
    def __call__(self, trials):
        jobs.run_trial = finish
        super().__call__(trials)


class ScoredWork(jobs.Work):
    def __call__(self, trials):
        jobs.run_trial = score
        super().__call__(trials)


class EndlessWork(jobs.Work):
    def __call__(self, trials):
        jobs.run_trial = run_until_stopped
        super().__call__(trials)
