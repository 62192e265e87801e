"""Trials as jobs of submitit: what a job runs, and waiting for jobs; see workers.py and slurm.py.

A job runs its share of the trials one after the other in one process, so that trials with the same
compiled functions compile once. The logs of the jobs are in DIR/jobs/. Results are read from the
folders of the trials.
"""

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from submitit.helpers import DelayedSubmission

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.preemption import Preempted, Preemption
from retinanet_jax.sweep.machine import Share
from retinanet_jax.sweep.run_trial import Progress, begin, fail, run_trial
from retinanet_jax.sweep.trials import UNFINISHED, End, Trial
from retinanet_jax.training.setup import RunCache

FOLDER = "jobs"


class Work:
    """What a job runs; submitit pickles it.

    Args:
        share: share of the machine for a worker process.
        leash: file with the process id of the sweep, for a worker process. The worker saves and
            stops once the file is gone or that process has ended.
    """

    def __init__(self, share: Share | None = None, leash: Path | None = None):
        self._share, self._leash = share or Share(), leash

    def __call__(self, trials: list[Trial]) -> None:
        """Runs the trials that have not ended yet."""
        cache = RunCache()
        self._share.take()
        try:
            with Preemption():
                if self._leash is not None:
                    os.setsid()  # Ctrl-C in a terminal reaches the sweep, which stops its workers
                    threading.Thread(target=_follow, args=(self._leash,), daemon=True).start()
                for trial in trials:
                    if trial.end().state == UNFINISHED:
                        print(f"starting {trial.name}", flush=True)
                        run_trial(trial, cache)
        except Preempted as stopped:
            print(f"stopped by {stopped}", flush=True)

    def checkpoint(self, trials: list[Trial]) -> DelayedSubmission:
        """What submitit runs if Slurm queues the job again: the same, which resumes."""
        return DelayedSubmission(self, trials)


def _follow(leash: Path) -> None:
    """Sends SIGTERM to this process once the sweep has ended."""
    while True:
        try:
            os.kill(int(leash.read_text(encoding="ascii")), 0)
        except (OSError, ValueError):
            break
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


class Job(NamedTuple):
    """A submitted job, what it runs, and its trials that have not ended."""

    job: submitit.Job
    work: Work
    trials: list[Trial]


class Jobs:
    """Submits jobs and waits for their trials; Workers and SlurmJobs are its kinds.

    A trial during which its job ended has failed; the rest of the job's trials are submitted again.

    Args:
        cluster: 'local' or 'slurm'.
        folder: for submitit's files and the logs.
        parameters: parameters of submitit's executor.
        poll: seconds between two checks.

    Raises:
        ConfigError: submitit finds no Slurm, or rejects a parameter.
    """

    def __init__(self, cluster: str, folder: Path, parameters: dict[str, Any], poll: float):
        self._folder, self._poll = folder.resolve(), poll
        try:
            self._executor = submitit.AutoExecutor(self._folder, cluster=cluster)
            self._executor.update_parameters(stderr_to_stdout=True, **parameters)
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise ConfigError(f"--launcher={cluster}: {error}") from error

    def _submit(self, works: Sequence[Work], shares: Sequence[Sequence[Trial]]) -> list[Job]:
        """A job for each share of the trials that is not empty."""
        pairs = [(work, list(trials)) for work, trials in zip(works, shares, strict=True) if trials]
        for _, trials in pairs:
            for trial in trials:
                begin(trial)
        if not pairs:
            return []
        with self._executor.batch():  # of Slurm: one array
            jobs = [self._executor.submit(work, trials) for work, trials in pairs]
        return [Job(job, *pair) for job, pair in zip(jobs, pairs, strict=True)]

    def _running(self, jobs: Sequence[Job]) -> set[str]:
        """Ids of the jobs that are queued or run."""
        raise NotImplementedError

    def _wait(self, jobs: list[Job], progress: Progress) -> None:
        """Returns when all trials have ended."""
        gone: set[str] = set()
        while jobs:
            time.sleep(self._poll)
            # A network file system may show a result later than the end of its job: look twice.
            gone_before, gone = gone, {one.job.job_id for one in jobs} - self._running(jobs)
            left = []
            for one in jobs:
                trials = []
                for trial in one.trials:
                    end = trial.end()
                    if end.state == UNFINISHED:
                        trials.append(trial)
                    else:
                        progress.ends(trial, end)
                if trials and one.job.job_id in gone & gone_before:
                    progress.ends(trials[0], _fail_with(trials[0], one.job))
                    left += self._submit([one.work], [trials[1:]])
                elif trials:
                    left.append(one._replace(trials=trials))
            jobs = left


def absolute(trials: list[Trial]) -> list[Trial]:
    """With absolute paths, since a job may start in another folder."""
    return [trial._replace(workdir=trial.workdir.resolve()) for trial in trials]


def _fail_with(trial: Trial, job: submitit.Job) -> End:
    """The end of a trial whose job ended during it."""
    error = f"job {job.job_id} ended during this trial: killed, cancelled, or out of memory"
    return fail(trial, error, f"{error}; its log: {job.paths.stdout}")
