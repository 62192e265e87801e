"""Trials as jobs of submitit: worker processes of this machine, or jobs of Slurm.

A job runs its share of the trials one after the other in one process, so that trials with the same
compiled functions compile once. The logs of the jobs are in DIR/jobs/. Results are read from the
folders of the trials.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from submitit.helpers import DelayedSubmission

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.preemption import Preempted, Preemption
from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.sweep.in_process import by_compilation
from retinanet_jax.sweep.machine import Share, divide, own_cores, share_machine, visible_gpus
from retinanet_jax.sweep.trial import Progress, begin, fail, run_trial
from retinanet_jax.sweep.trials import UNFINISHED, End, Trial
from retinanet_jax.training.setup import RunCache

FOLDER = "jobs"
WEEK = 7 * 24 * 60  # minutes; submitit gives local jobs a time limit


class Work:
    """What a job runs; submitit pickles it.

    Args:
        share: of the machine, for a worker process.
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
    """Submits jobs and waits for their trials; see its two kinds below.

    A trial during which its job ended has failed; the rest of the job's trials are submitted again.

    Args:
        cluster: 'local' or 'slurm'.
        folder: for submitit's files and the logs.
        parameters: of submitit's executor.
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


class Workers(Jobs):
    """A launcher: `count` processes of this machine, each with GPUs or cores of its own.

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
        trials = _absolute(by_compilation(trials))
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


class SlurmJobs(Jobs):
    """A launcher: jobs of Slurm. They outlive the sweep; the same command waits for them again.

    Args:
        workdir: of the sweep, on a file system that all nodes see at this path.
        count: of the jobs, among which the trials are divided; 0: one for each trial.
        options: 'NAME=VALUE' of submitit's executor, such as 'slurm_partition=gpu'.
        poll: seconds between two checks.
    """

    def __init__(self, workdir: Path, count: int, options: Sequence[str], poll: float = 10.0):
        super().__init__("slurm", workdir / FOLDER, dict(map(_option, options)), poll)
        self._count, self._known = count, self._folder / "slurm.json"

    def __call__(self, trials: list[Trial], progress: Progress) -> None:
        """Submits the trials that are in no job yet, and waits for all of them."""
        trials = _absolute(by_compilation(trials))
        jobs = self._earlier_jobs(trials)
        submitted = {trial.name for one in jobs for trial in one.trials}
        new = [trial for trial in trials if trial.name not in submitted]
        count = self._count or len(new)
        write_whole(self._known, json.dumps(_by_id(jobs)))
        jobs += self._submit([Work()] * count, divide(new, count) if count else [])
        self._wait(jobs, progress)

    def _submit(self, works: Sequence[Work], shares: Sequence[Sequence[Trial]]) -> list[Job]:
        jobs = super()._submit(works, shares)
        known = json.loads(self._known.read_text(encoding="utf-8"))
        write_whole(self._known, json.dumps(known | _by_id(jobs), indent=2))
        return jobs

    def _earlier_jobs(self, trials: list[Trial]) -> list[Job]:
        """Jobs of an earlier start that are still queued or run."""
        if not self._known.exists():
            return []
        by_name = {trial.name: trial for trial in trials}
        known = json.loads(self._known.read_text(encoding="utf-8"))
        jobs = [
            Job(
                submitit.SlurmJob(self._folder, job_id),
                Work(),
                [by_name[name] for name in names if name in by_name],
            )
            for job_id, names in known.items()
        ]
        running = self._running(jobs)
        return [one for one in jobs if one.trials and one.job.job_id in running]

    def _running(self, jobs: Sequence[Job]) -> set[str]:
        ids = {one.job.job_id for one in jobs}
        # submitit asks sacct, which needs the accounting that not every cluster has.
        command = ["squeue", "--noheader", "--array", "--me", "--format=%i"]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            return ids  # Slurm does not answer at the moment
        return ids & set(answer.stdout.split())


def _by_id(jobs: Sequence[Job]) -> dict[str, list[str]]:
    return {one.job.job_id: [trial.name for trial in one.trials] for one in jobs}


def _absolute(trials: list[Trial]) -> list[Trial]:
    """With absolute paths, since a job may start in another folder."""
    return [trial._replace(workdir=trial.workdir.resolve()) for trial in trials]


def _fail_with(trial: Trial, job: submitit.Job) -> End:
    """The end of a trial whose job ended during it."""
    error = f"job {job.job_id} ended during this trial: killed, cancelled, or out of memory"
    return fail(trial, error, f"{error}; its log: {job.paths.stdout}")


def _option(text: str) -> tuple[str, Any]:
    """'timeout_min=240' as a name and a value; digits are a number."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--slurm {text}: write NAME=VALUE, such as slurm_partition=gpu")
    return name, int(value) if value.isdigit() else value
