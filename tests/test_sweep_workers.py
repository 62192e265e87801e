"""Worker processes that die, are stopped, or lose the sweep that started them; without training."""

import subprocess
import sys
import time

import pytest
from sweeps import ROOT, SMALL, run

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.preemption import EXIT_CODE
from retinanet_jax.sweep import workers
from retinanet_jax.sweep.trials import FAILED, FINISHED, UNFINISHED, read_plan

# A worker that finishes its trials, but dies of one as if there were no memory left.
STAND_IN = """
import os, signal, sys, time
for line in sys.stdin:
    name = line.strip()
    if name == "gamma=1":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "gamma=7":
        sys.exit(75)
    with open(os.path.join(sys.argv[1], name, "trial.json"), "w") as file:
        file.write('{"state": "finished", "summary": {"AP": 0.5}}')
    print(name, flush=True)
"""

# The real one; its trials take for ever, until a signal stops them.
ENDLESS = """
import sys, time
from pathlib import Path
from retinanet_jax.preemption import EXIT_CODE, Preempted, Preemption
from retinanet_jax.sweep import worker

def run_trial(trial, shared):
    with Preemption():
        print("at work", flush=True)
        (trial.workdir / "began").touch()
        time.sleep(600)

worker.run_trial = run_trial
try:
    worker.main(Path(sys.argv[1]), set())
except Preempted:
    sys.exit(EXIT_CODE)
"""


@pytest.fixture
def started(monkeypatch):
    """The processes of the stand-in that were started."""
    processes = []

    def start(share, workdir):
        command = [sys.executable, "-c", STAND_IN, str(workdir)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, **pipes))
        return processes[-1]

    monkeypatch.setattr(workers, "start", start)
    return processes


def sweep(tmp_path, gammas, count=1):
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", f"loss.gamma={gammas}"]
    code = run(*words, "--launcher=workers", f"--workers={count}")
    return code, [trial.end().state for trial in read_plan(tmp_path)]


def test_a_worker_that_dies_costs_its_trial_alone(tmp_path, started):
    assert sweep(tmp_path, "0,1,2") == (1, [FINISHED, FAILED, FINISHED])
    assert len(started) == 2 and all(process.wait(10) is not None for process in started)
    assert "killed by signal 9" in (tmp_path / "report.md").read_text()
    assert "log.txt" in (tmp_path / "gamma=1/error.txt").read_text()


def test_a_worker_that_was_asked_to_stop_stops_the_sweep(tmp_path, started):
    assert sweep(tmp_path, "0,7,2") == (EXIT_CODE, [FINISHED, UNFINISHED, UNFINISHED])
    assert all(process.wait(10) is not None for process in started)


def test_a_sweep_of_nothing_that_is_left_starts_no_worker(tmp_path, started):
    assert sweep(tmp_path, "0,2")[0] == 0 and len(started) == 1
    assert sweep(tmp_path, "0,2")[0] == 0 and len(started) == 1


def test_a_worker_stops_where_its_sweep_is_gone(tmp_path, started):
    sweep(tmp_path, "0")  # leaves a plan
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write("gamma=0\n")
    process.stdin.flush()
    began = tmp_path / "gamma=0/began"
    for _ in range(1200):
        if began.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.stdin.close()  # as the system does where the sweep is killed
    assert process.wait(60) == EXIT_CODE
    assert (tmp_path / "gamma=0/log.txt").read_text() == "at work\n"


def test_shares_of_a_machine_are_even_and_whole():
    for count in range(1, 8):
        shares = workers.divided([], range(7), count)
        assert sorted(core for share in shares for core in share.cores) == list(range(7))
        sizes = {len(share.cores) for share in shares}
        assert max(sizes) - min(sizes) <= 1
    two = workers.divided(["3", "5"], range(7), 2)
    assert two == [workers.Share(["3"], ()), workers.Share(["5"], ())]
    with pytest.raises(ConfigError, match="there are 2 GPUs"):
        workers.divided(["3", "5"], range(7), 3)
    assert workers.divided([], [], 2) == [workers.Share((), [])] * 2


def test_gpus_are_those_that_the_user_left_visible(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5a")
    assert workers.visible_gpus() == ["2", "GPU-5a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert workers.visible_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert workers.visible_gpus() == []
