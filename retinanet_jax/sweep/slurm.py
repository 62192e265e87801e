"""A launcher of sweeps: jobs of Slurm, by submitit."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.sweep.in_process import by_compilation
from retinanet_jax.sweep.jobs import FOLDER, Job, Jobs, Work, absolute
from retinanet_jax.sweep.machine import divide
from retinanet_jax.sweep.run_trial import Progress
from retinanet_jax.sweep.trials import Trial


class SlurmJobs(Jobs):
    """Jobs of Slurm. They outlive the sweep; the same command waits for them again.

    Args:
        workdir: folder of the sweep, which all nodes must see at this path.
        count: number of jobs, among which the trials are divided; 0: one job per trial.
        options: 'NAME=VALUE' of submitit's executor, such as 'slurm_partition=gpu'.
        poll: seconds between two checks.
    """

    def __init__(self, workdir: Path, count: int, options: Sequence[str], poll: float = 10.0):
        super().__init__("slurm", workdir / FOLDER, dict(map(_option, options)), poll)
        self._count, self._known = count, self._folder / "slurm.json"

    def __call__(self, trials: list[Trial], progress: Progress) -> None:
        """Submits the trials that are in no job yet, and waits for all of them."""
        trials = absolute(by_compilation(trials))
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


def _option(text: str) -> tuple[str, Any]:
    """'timeout_min=240' as a name and a value; digits are a number."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--slurm {text}: write NAME=VALUE, such as slurm_partition=gpu")
    return name, int(value) if value.isdigit() else value
