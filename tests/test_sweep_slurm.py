"""A sweep as jobs of Slurm: of a real one if there is one, and of programs that imitate it.

With a Slurm on this machine (Debian: slurmctld, slurmd, munge, all on 127.0.0.1):
    SLURM_CONF=FILE python -m pytest tests/test_sweep_slurm.py
"""

import json
import os
import shutil
import subprocess

import fake_slurm
import pytest
from sweeps import SMALL, run

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.sweep import command
from retinanet_jax.sweep.slurm import SlurmJobs
from retinanet_jax.sweep.trials import FAILED, FINISHED, read_plan


def real_slurm() -> bool:
    answer = shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True, timeout=20)
    return bool(answer) and answer.returncode == 0


@pytest.fixture(params=["real", "stand-in"])
def slurm(request, tmp_path, monkeypatch):
    """A Slurm, with jobs checked twice a second."""
    if request.param == "real" and not real_slurm():
        pytest.skip("there is no Slurm here")
    if request.param == "stand-in":
        programs = tmp_path / "programs"
        programs.mkdir()
        fake_slurm.install(programs)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(command, "SlurmJobs", lambda *words: SlurmJobs(*words, poll=0.5))
    return request.param


def words(tmp_path, gammas):
    return [
        *(f"--workdir={tmp_path / 'sweep'}", *SMALL, f"--config.data.cache_dir={tmp_path / 'c'}"),
        *("--grid", f"loss.gamma={gammas}", "--launcher=slurm", "--slurm", "timeout_min=10"),
    ]


class Stopped(BaseException):
    """Ends the sweep; its jobs continue."""


@pytest.mark.extended
def test_a_restarted_sweep_waits_for_the_jobs_of_its_first_start(slurm, tmp_path, monkeypatch):
    def stop(seconds):
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("retinanet_jax.sweep.jobs.time.sleep", stop)
        run(*words(tmp_path, "2"))
    workdir = tmp_path / "sweep"
    assert run(f"--workdir={workdir}", "--launcher=slurm") == 0
    assert len(list((workdir / "jobs").glob("*_submission.sh"))) == 1
    (trial,) = read_plan(workdir)
    assert trial.end().state == FINISHED
    assert "Trials: 1 (1 finished" in (workdir / "report.md").read_text()
    (job,) = json.loads((workdir / "jobs/slurm.json").read_text())
    assert "evaluating step 2" in (workdir / f"jobs/{job}_0_log.out").read_text()


def test_trials_of_jobs_that_end_without_a_result_have_failed(slurm, tmp_path, monkeypatch):
    """Here because Python cannot start; the same holds for cancelled jobs."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "jax.py").write_text("raise SystemExit('no accelerator')")
    assert run(*words(tmp_path, "0,2")) == 1
    assert {trial.end().state for trial in read_plan(tmp_path / "sweep")} == {FAILED}
    jobs = json.loads((tmp_path / "sweep/jobs/slurm.json").read_text())
    assert list(jobs.values()) == [["gamma=0"], ["gamma=2"]]
    report = (tmp_path / "sweep/report.md").read_text()
    assert f"- `gamma=2`: job {list(jobs)[1]} ended during this trial" in report


def test_a_missing_slurm_and_wrong_options_are_errors(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"--launcher=slurm: .*srun"):
        SlurmJobs(tmp_path, 0, [])
    fake_slurm.install(tmp_path)
    with pytest.raises(ConfigError, match="write NAME=VALUE"):
        SlurmJobs(tmp_path, 0, ["gpu"])
    with pytest.raises(ConfigError, match="partitio"):
        SlurmJobs(tmp_path, 0, ["slurm_partitio=gpu"])
