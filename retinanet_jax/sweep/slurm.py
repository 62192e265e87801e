"""Trials as jobs of Slurm, by submitit (an extra: pip install 'retinanet_jax[slurm]').

Each trial is a job of one process; its logs are in DIR/slurm/. A job that is preempted or reaches
its time is queued again by submitit and goes on from its last checkpoint. The sweep waits for its
jobs and reports; where it is stopped meanwhile, they go on, and the same command waits for them
again.
"""

import functools
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.sweep.trial import Progress, begin, fail, run_trial
from retinanet_jax.sweep.trials import UNFINISHED, End, Trial
from retinanet_jax.training.setup import RunCache

JOBS_FILE = "jobs.json"


class Job:
    """What runs in a job; submitit asks it what to run where the job is queued again."""

    def __call__(self, trial: Trial) -> End:
        return run_trial(trial, RunCache())

    def checkpoint(self, trial: Trial) -> Any:
        """The same: it goes on by itself from the last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, trial)


class Slurm:
    """A launcher: all trials at once; Slurm decides when and where they run.

    Args:
        workdir: of the sweep, on a file system that all nodes see at this path.
        options: 'NAME=VALUE' of submitit's executor, such as 'slurm_partition=gpu'.
        poll: seconds between two looks at the jobs.

    Raises:
        ConfigError: submitit is not installed, finds no Slurm, or does not take the options.
    """

    def __init__(self, workdir: Path, options: Sequence[str], poll: float = 10.0):
        self._folder, self._poll = workdir.resolve() / "slurm", poll
        try:
            import submitit
        except ImportError as error:
            fix = "pip install 'retinanet_jax[slurm]'"
            raise ConfigError(f"--launcher=slurm needs submitit: {fix}") from error
        self._job_of = functools.partial(submitit.SlurmJob, self._folder)
        try:
            self._executor = submitit.AutoExecutor(self._folder, cluster="slurm")
            self._executor.update_parameters(**dict(_option(text) for text in options))
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise ConfigError(f"--launcher=slurm: {error}") from error

    def __call__(self, trials: list[Trial], progress: Progress) -> None:
        """Submits the trials that are not in the queue yet, and waits for all of them."""
        # Jobs may start in another folder.
        trials = [trial._replace(workdir=trial.workdir.resolve()) for trial in trials]
        jobs = self._submit(trials)
        for trial in trials:
            progress.begins(trial)
        waiting, gone = trials, set()
        while waiting:
            time.sleep(self._poll)
            gone_before, gone = gone, set(jobs) - _alive(jobs)
            # Network file systems may show a result later than Slurm shows the end: once more.
            ended = gone_before & gone
            left = []
            for trial in waiting:
                end = trial.end()
                if end.state == UNFINISHED and trial.name in ended:
                    end = _died(trial, jobs[trial.name])
                if end.state == UNFINISHED:
                    left.append(trial)
                else:
                    progress.ends(trial, end)
            waiting = left

    def _submit(self, trials: list[Trial]) -> dict[str, Any]:
        """Jobs by the name of their trial; those that an earlier start left in the queue stay."""
        path = self._folder / JOBS_FILE
        known = json.loads(path.read_text()) if path.exists() else {}
        jobs = {name: self._job_of(job_id) for name, job_id in known.items()}
        alive = _alive(jobs)
        jobs = {name: job for name, job in jobs.items() if name in alive}
        new = [trial for trial in trials if trial.name not in jobs]
        for trial in new:
            begin(trial)
        submitted = self._executor.map_array(Job(), new) if new else []
        jobs |= {trial.name: job for trial, job in zip(new, submitted, strict=True)}
        ids = {name: job.job_id for name, job in jobs.items()}
        write_whole(path, json.dumps(ids, indent=2))
        return jobs


def _alive(jobs: dict[str, Any]) -> set[str]:
    """The names of those that wait or run; all of them where Slurm does not answer."""
    # Not by submitit, which asks the accounting that not every cluster keeps.
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i"]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        return set(jobs)
    queued = answer.stdout.split()
    return {name for name, job in jobs.items() if job.job_id in queued}


def _died(trial: Trial, job: Any) -> End:
    """The end of a trial whose job left none: cancelled, killed, or without a node."""
    words = f"job {job.job_id} ended without a result: cancelled, killed, or its node failed"
    return fail(trial, words, f"{words}; its logs: {job.paths.stdout}, {job.paths.stderr}")


def _option(text: str) -> tuple[str, Any]:
    """'timeout_min=240' as a name and a value; what is no number is text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--slurm {text}: write NAME=VALUE, such as slurm_partition=gpu")
    return name, int(value) if value.isdigit() else value
