"""Trials as jobs of Slurm, by submitit (an extra: pip install 'retinanet_jax[slurm]').

Each trial is a job of one process; its logs are in DIR/slurm/. A job that is preempted or reaches
its time is queued again by submitit and goes on from its last checkpoint. The sweep waits for its
jobs and reports; where it is stopped meanwhile, they go on, and the same command waits for them
again.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinanet_jax.config import ConfigError
from retinanet_jax.programs import Shared
from retinanet_jax.sweep.plan import UNFINISHED, End, Trial
from retinanet_jax.sweep.trial import Progress, begin, fail, run_trial
from retinanet_jax.workdir import write_whole

JOBS_FILE = "jobs.json"


class Job:
    """What runs in a job; submitit asks it what to run where the job is queued again."""

    def __call__(self, trial: Trial) -> End:
        return run_trial(trial, Shared())

    def checkpoint(self, trial: Trial) -> Any:
        """The same: it goes on by itself from the last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, trial)


class Slurm:
    """A launcher: all trials at once; Slurm decides when and where they run.

    Args:
        workdir: of the sweep, on a file system that all nodes see at this path.
        options: 'NAME=VALUE' of submitit's executor, such as 'slurm_partition=gpu'.
        cluster: 'slurm', or 'local': submitit's processes of this machine, for tests.
        poll: seconds between two looks at the jobs.

    Raises:
        ConfigError: submitit is not installed, finds no Slurm, or does not take the options.
    """

    def __init__(
        self, workdir: Path, options: Sequence[str], cluster: str = "slurm", poll: float = 10.0
    ):
        self._folder, self._poll = workdir.resolve() / "slurm", poll
        try:
            import submitit
            from submitit.local.local import LocalJob
        except ImportError as error:
            mend = "pip install 'retinanet_jax[slurm]'"
            raise ConfigError(f"--launcher=slurm needs submitit: {mend}") from error
        self._job_class = LocalJob if cluster == "local" else submitit.SlurmJob
        try:
            self._executor = submitit.AutoExecutor(self._folder, cluster=cluster)
            self._executor.update_parameters(**dict(_option(text) for text in options))
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise ConfigError(f"--launcher=slurm: {error}") from error

    def __call__(self, trials: list[Trial], progress: Progress) -> None:
        """Submits the trials that are not in the queue yet, and waits for all of them."""
        trials = [trial._replace(workdir=trial.workdir.resolve()) for trial in trials]
        jobs = self._submit(trials)
        waiting = dict(zip((trial.name for trial in trials), trials, strict=True))
        for trial in trials:
            progress.begins(trial)
        while waiting:
            for name, trial in list(waiting.items()):
                done = jobs[name].done()
                end = trial.end()
                if end.state == UNFINISHED and not done:
                    continue
                if end.state == UNFINISHED:
                    end = _died(trial, jobs[name])
                progress.ends(trial, end)
                del waiting[name]
            time.sleep(self._poll if waiting else 0)

    def _submit(self, trials: list[Trial]) -> dict[str, Any]:
        """Jobs by the name of their trial; those that an earlier start left in the queue stay."""
        jobs = self._queued()
        new = [trial for trial in trials if trial.name not in jobs]
        for trial in new:
            begin(trial)
        if new:
            submitted = self._executor.map_array(Job(), new)
            jobs |= {trial.name: job for trial, job in zip(new, submitted, strict=True)}
        ids = {name: job.job_id for name, job in jobs.items()}
        write_whole(self._folder / JOBS_FILE, json.dumps(ids, indent=2))
        return jobs

    def _queued(self) -> dict[str, Any]:
        """Jobs of an earlier start that have not ended."""
        path = self._folder / JOBS_FILE
        known = json.loads(path.read_text()) if path.exists() else {}
        jobs = {name: self._job_class(self._folder, job_id) for name, job_id in known.items()}
        return {name: job for name, job in jobs.items() if not job.done()}


def _died(trial: Trial, job: Any) -> End:
    """The end of a trial whose job left none: cancelled, killed, or without a node."""
    words = f"job {job.job_id} ended as {job.state}"
    return fail(trial, words, f"{words}\n{job.paths.stdout}\n{job.stderr() or ''}")


def _option(text: str) -> tuple[str, Any]:
    """'timeout_min=240' as a name and a value; what is no number is text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--slurm {text}: write NAME=VALUE, such as slurm_partition=gpu")
    return name, int(value) if value.isdigit() else value
