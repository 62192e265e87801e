"""The scripts that start a run on a cluster, with imitations of the cluster's commands."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from retinanet_jax.runtime.find_processes import Launch

FOLDER = Path(__file__).parent.parent / "scripts/launch"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Makes a command that records its arguments, one a line, and ends with the given code."""
    recorded = tmp_path / "recorded.txt"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, code: int = 0) -> Path:
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >>{recorded}\nexit {code}\n')
        path.chmod(0o755)
        return recorded

    return make


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(FOLDER / script), *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_shell(script):
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert os.access(script, os.X_OK)
    if shutil.which("shellcheck"):
        checked = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(("code", "again"), [(0, False), (1, False), (75, True), (134, False)])
def test_slurm_requeues_only_a_run_that_was_stopped(code, again, stand_in):
    recorded = stand_in("srun", code)
    stand_in("scontrol")
    done = run("slurm.sh", "--workdir=a folder", SLURM_JOB_ID="12", SLURM_CPUS_PER_TASK="7")
    assert done.returncode == code
    srun, _, scontrol = recorded.read_text().partition("scontrol\n")
    assert "--workdir=a folder" in srun.splitlines() and "--cpus-per-task=7" in srun
    assert scontrol.splitlines() == (["requeue", "12"] if again else [])


def test_tpu_passes_the_arguments_unchanged_to_each_host(stand_in):
    assert "tpu.sh NAME ZONE" in run("tpu.sh", "name").stderr
    recorded = stand_in("gcloud")
    done = run("tpu.sh", "name", "zone", "--workdir=a folder", "--config.data.mix=('x:y:z',)")
    assert done.returncode == 0, done.stderr
    first = recorded.read_text().split("gcloud\n")[1]
    assert "--worker=all" in first
    stand_in("python")
    command = first.partition("--command=")[2].replace(
        "cd retinanet_jax && . .venv/bin/activate &&", ""
    )
    home = str(recorded.parent)
    assert (
        subprocess.run(
            ["bash", "-c", f"{command} wait"], env={**os.environ, "HOME": home}
        ).returncode
        == 0
    )
    arguments = recorded.read_text().partition("python\n")[2].splitlines()
    assert arguments == [
        "-m",
        "retinanet_jax.main",
        "--workdir=a folder",
        "--config.data.mix=('x:y:z',)",
    ]


def test_kubernetes_starts_all_processes_and_names_the_first():
    service, job = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    name, domain = job["metadata"]["name"], service["metadata"]["name"]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None" and pod["subdomain"] == domain
    assert spec["completionMode"] == "Indexed" and spec["parallelism"] == spec["completions"]
    (container,) = pod["containers"]
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    assert flags["coordinator"].rpartition(":")[0] == f"{name}-0.{domain}"
    assert flags["process_id"] == "$(JOB_COMPLETION_INDEX)"
    assert int(flags["num_processes"]) == spec["completions"]
    assert Launch(flags["coordinator"], int(flags["num_processes"]), 0).find()
    codes = {
        rule["action"]: rule.get("onExitCodes") for rule in spec["podFailurePolicy"]["rules"][:2]
    }
    assert codes["FailJob"]["values"] == [1] and codes["Ignore"]["values"] == [75]
