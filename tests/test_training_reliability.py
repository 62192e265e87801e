"""Runs that are killed, stopped or started twice end as uninterrupted ones. Real processes.

docs/reliability.md lists the failures.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from retinanet_jax.runtime.checkpoints import Checkpoints

ROOT = Path(__file__).parent.parent
STEPS = 40
ENTRIES = ("params", "batch_stats", "opt_state", "step")


def command(workdir: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "retinanet_jax.main", "--config=tests/small.py"),
        *(f"--workdir={workdir}", f"--config.data.cache_dir={workdir.parent / 'cache'}"),
        *(f"--config.train.steps={STEPS}", "--config.train.checkpoint_every=3"),
        *("--config.evaluation.example_images=0", *more),
    ]


def run(workdir: Path, *more: str) -> subprocess.CompletedProcess:
    """Runs to the end and captures the output."""
    return subprocess.run(
        command(workdir, *more), cwd=ROOT, capture_output=True, text=True, timeout=900
    )


def start(workdir: Path, *more: str) -> subprocess.Popen:
    """Starts a run in the background; its output goes to WORKDIR.txt."""
    with workdir.with_suffix(".txt").open("a") as words:
        return subprocess.Popen(command(workdir, *more), cwd=ROOT, stdout=words, stderr=words)


def lines(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    # The last line may be incomplete.
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    deadline = time.monotonic() + 600
    while not any(line["step"] >= step for line in lines(workdir)):
        assert process.poll() is None, workdir.with_suffix(".txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_same_run(workdir: Path, other: Path) -> None:
    """Equal states and losses to the last bit, and each step once in the log."""
    ours, theirs = (Checkpoints(w / "checkpoints") for w in (workdir, other))
    assert ours.latest_step() == theirs.latest_step() == STEPS
    pairs = zip(
        jax.tree.leaves(ours.read_part(ENTRIES)),
        jax.tree.leaves(theirs.read_part(ENTRIES)),
        strict=True,
    )
    for x, y in pairs:
        np.testing.assert_array_equal(x, y)
    losses = [
        [(line["step"], line["loss"]) for line in lines(w) if line["kind"] == "train"]
        for w in (workdir, other)
    ]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == [*range(1, STEPS + 1)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """The workdir of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    done = run(workdir)
    assert done.returncode == 0, done.stderr
    return workdir


def kill_and_restart(workdir: Path, kills: int, seed: int) -> None:
    """Kills a run at random moments of its steps and checkpoints; the last start ends."""
    rng = np.random.default_rng(seed)
    for kill in range(kills):
        process = start(workdir)
        low, high = (STEPS * k // kills for k in (kill, kill + 1))
        wait_for_step(process, workdir, max(1, int(rng.integers(low, high))))
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.wait()
    assert run(workdir).returncode == 0


@pytest.mark.extended
def test_a_killed_and_restarted_run_ends_as_an_uninterrupted_one(straight):
    workdir = straight.with_name("killed")
    kill_and_restart(workdir, kills=1, seed=1)
    assert_same_run(workdir, straight)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_many_times(straight, seed):
    workdir = straight.with_name(f"killed_{seed}")
    kill_and_restart(workdir, kills=10, seed=100 + seed)
    assert_same_run(workdir, straight)


@pytest.mark.slow
def test_a_second_run_an_evaluation_meanwhile_and_a_stop_by_the_scheduler(straight):
    workdir = straight.with_name("stopped")
    process = start(workdir)
    wait_for_step(process, workdir, 10)
    process.send_signal(signal.SIGSTOP)  # in the middle of its work, and holding the workdir

    second = run(workdir)
    assert second.returncode == 1 and "Traceback" not in second.stderr
    assert f"WorkdirError: {workdir}: in use by another run (process {process.pid} on" in (
        second.stderr
    )
    before = lines(workdir)
    evaluation = run(workdir, "--mode=evaluate")
    assert evaluation.returncode == 0, evaluation.stderr
    assert lines(workdir)[: len(before)] == before and lines(workdir)[-1]["kind"] == "eval"

    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert process.wait(300) == 75
    words = workdir.with_suffix(".txt").read_text()
    step = Checkpoints(workdir / "checkpoints").latest_step()
    assert "stopped by SIGTERM; the same command resumes" in words
    assert 10 <= step < STEPS and f"SIGTERM: saved step {step}" in words

    assert run(workdir).returncode == 0
    assert_same_run(workdir, straight)


@pytest.mark.slow
def test_stopped_before_the_first_step(straight):
    workdir = straight.with_name("early")
    process = start(workdir)
    deadline = time.monotonic() + 600
    while not (workdir / ".lock").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.terminate()
    code, words = process.wait(300), workdir.with_suffix(".txt").read_text()
    assert code == 75, words
    assert "stopped by SIGTERM" in words and "Traceback" not in words


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_the_run_resumes_with_more_space(straight, small_disk):
    checkpoint = sum(
        f.stat().st_size for f in (straight / f"checkpoints/{STEPS}").rglob("*") if f.is_file()
    )
    subprocess.run(
        ["mount", "-o", f"remount,size={int(2.5 * checkpoint)}", str(small_disk)], check=True
    )
    done = run(small_disk / "run", f"--config.data.cache_dir={straight.parent / 'cache'}")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()
    assert any("MB free" in line for line in last), done.stderr
    assert any("resumes from the last checkpoint" in line for line in last)
    assert Checkpoints(small_disk / "run/checkpoints").latest_step() >= 3
    subprocess.run(["mount", "-o", "remount,size=500m", str(small_disk)], check=True)
    again = run(small_disk / "run", f"--config.data.cache_dir={straight.parent / 'cache'}")
    assert again.returncode == 0, again.stderr
    assert_same_run(small_disk / "run", straight)
