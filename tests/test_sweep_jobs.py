"""Worker processes of a sweep: their share of the machine, what happens if one dies or is stopped.

Real processes of submitit, without training.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import stand_in_work
from sweeps import ROOT, SMALL, run

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.preemption import EXIT_CODE
from retinanet_jax.sweep import workers
from retinanet_jax.sweep.machine import Share, divide, share_machine, visible_gpus
from retinanet_jax.sweep.trials import FAILED, FINISHED, UNFINISHED, read_plan


@pytest.fixture
def in_path(monkeypatch):
    """The processes of submitit find stand_in_work."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{Path(__file__).parent}")


def sweep(tmp_path, gammas, count):
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", f"loss.gamma={gammas}"]
    return run(*words, "--launcher=workers", f"--workers={count}")


def wait_for(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_a_worker_that_dies_fails_its_trial_alone(tmp_path, in_path, monkeypatch):
    monkeypatch.setattr(workers, "Work", stand_in_work.QuickWork)
    cores = os.sched_getaffinity(0)
    count = min(2, len(cores))
    assert sweep(tmp_path, "0,1,2,3,4", count) == 1
    trials = read_plan(tmp_path)
    assert [t.end().state for t in trials] == [FINISHED] * 3 + [FAILED, FINISHED]
    processes = [t.end().summary["process"] for t in trials if t.end().state == FINISHED]
    # Of two workers: gamma 0 and 1 in the first, 2 in the second, 4 in one that replaces it.
    assert len(set(processes)) == count + 1 and processes[0] == processes[1]
    assert {t.end().summary.get("cores", 1) for t in trials} == {len(cores) // count, 1}
    report = (tmp_path / "report.md").read_text()
    assert "- `gamma=3`: job " in report and "ended during this trial" in report
    log = (tmp_path / "gamma=3/error.txt").read_text().split("its log: ")[1].strip()
    assert "starting gamma=3" in Path(log).read_text()


def test_a_sweep_that_is_stopped_stops_its_workers_first(tmp_path, in_path, monkeypatch):
    monkeypatch.setattr(workers, "Work", stand_in_work.EndlessWork)
    started = tmp_path / "gamma=0/started"

    def stop():
        wait_for(started.exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert sweep(tmp_path, "0,2", 1) == EXIT_CODE
    thread.join()
    assert (tmp_path / "gamma=0/saved").exists()
    assert [t.end().state for t in read_plan(tmp_path)] == [UNFINISHED] * 2
    assert not (tmp_path / "gamma=2/started").exists()


def test_ctrl_c_reaches_all_processes_and_the_workers_save(tmp_path, in_path):
    """A terminal sends SIGINT to the whole group; submitit's process would kill its job then."""
    program = (
        "import sys, stand_in_work, sweeps\n"
        "from retinanet_jax.sweep import workers\n"
        "workers.Work = stand_in_work.EndlessWork\n"
        "sys.exit(sweeps.run(*sys.argv[1:]))\n"
    )
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", "loss.gamma=0", "--launcher=workers"]
    command = [sys.executable, "-c", program, *words, "--workers=1"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "gamma=0/started").exists)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == EXIT_CODE, errors
    assert "stopped by SIGINT; the same command resumes" in errors
    assert (tmp_path / "gamma=0/saved").exists()


def test_a_worker_stops_if_its_sweep_is_killed(tmp_path, in_path):
    (tmp_path / "trial").mkdir()
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (tmp_path / "sweep.pid").write_text(str(owner.pid))
    program = (
        "import pathlib, sys, stand_in_work\n"
        "from retinanet_jax.sweep.trials import Trial\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "work = stand_in_work.EndlessWork(leash=folder / 'sweep.pid')\n"
        "work([Trial('trial', {}, folder / 'trial')])\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    wait_for((tmp_path / "trial/started").exists)
    owner.kill()
    owner.wait()
    assert worker.communicate(timeout=300)[0] == "starting trial\nstopped by SIGTERM\n"
    assert (tmp_path / "trial/saved").exists()


def test_shares_of_a_machine_are_even_and_complete():
    for count in range(1, 8):
        shares = share_machine([], range(7), count)
        assert sorted(core for share in shares for core in share.cores) == list(range(7))
        sizes = {len(share.cores) for share in shares}
        assert max(sizes) - min(sizes) <= 1
    two = share_machine(["3", "5"], range(7), 2)
    assert two == [Share(gpus=["3"]), Share(gpus=["5"])]
    with pytest.raises(ConfigError, match="the machine has 2 GPUs"):
        share_machine(["3", "5"], range(7), 3)
    assert [list(share.cores) for share in share_machine([], [], 2)] == [[], []]
    assert [list(part) for part in divide("abcde", 3)] == [["a"], ["b", "c"], ["d", "e"]]


@pytest.mark.parametrize(
    ("value", "gpus"),
    [
        ("2,GPU-5a", ["2", "GPU-5a"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1, 0,-1,2", ["1", "0"]),  # CUDA stops at the first invalid name
    ],
)
def test_visible_gpus_are_those_of_the_environment(monkeypatch, value, gpus):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == gpus
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert visible_gpus() == []
