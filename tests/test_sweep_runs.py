"""Sweeps that train: one compilation, restart after a kill, equal results of both launchers."""

import csv
import json
import logging
import os
import re
import signal
import subprocess
import time
from collections import Counter

import jax
import pytest
from sweeps import ROOT, SMALL, command, run

from retinanet_jax.runtime.mesh import gathered
from retinanet_jax.sweep.trials import FINISHED, UNFINISHED, read_plan

GRID = ["--grid", "loss.gamma=0,2", "--seeds=2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A compilation cache for the processes of these tests."""
    return f"--config.data.cache_dir={tmp_path_factory.mktemp('cache')}"


def test_a_grid_compiles_once(tmp_path, cache, caplog):
    """Also where trials differ in what no compiled function reads."""
    words = [f"--workdir={tmp_path}", *SMALL, cache, "--config.train.steps=1"]
    grid = ["--zip", "loss.alpha=.25,.5,.75", "train.steps=1,1,2", "augmentation.mixup=0,0,.5"]
    grid += ["--grid", "loss.gamma=0,0.5,1,2,5"]
    gathered.clear_cache()  # a function of the module, which an earlier test may have called
    jax.config.update("jax_log_compiles", True)  # in all threads
    try:
        with caplog.at_level(logging.WARNING):
            assert run(*words, *grid) == 0
    finally:
        jax.config.update("jax_log_compiles", False)
    trials = read_plan(tmp_path)
    assert len(trials) == 15 and {trial.end().state for trial in trials} == {FINISHED}
    messages = (record.getMessage() for record in caplog.records)
    compiled = Counter(
        found[1] for found in (re.match(r"Compiling jit\((.*?)\)", m) for m in messages) if found
    )
    programs = ("first_state", "train_step", "measure", "gathered")
    assert [compiled[name] for name in programs] == [1] * 4, compiled
    losses = {metrics(trial)[0]["class_loss"] for trial in trials}
    assert len(losses) == 15  # each trial used its own parameters


def metrics(trial):
    return [json.loads(line) for line in (trial.workdir / "metrics.jsonl").open()]


def losses_of(workdir):
    return {t.name: [m.get("loss") for m in metrics(t)] for t in read_plan(workdir)}


@pytest.fixture(scope="module")
def straight(tmp_path_factory, cache):
    """An uninterrupted sweep of four trials in this process."""
    workdir = tmp_path_factory.mktemp("straight") / "sweep"
    assert run(f"--workdir={workdir}", *SMALL, cache, *GRID) == 0
    return workdir


def rows_of(workdir):
    """report.csv; its metrics tell the trials apart."""
    with (workdir / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(float(row["AR100"]) > 0 for row in rows)
    return rows


@pytest.mark.extended
def test_a_killed_sweep_resumes_and_has_the_same_report(tmp_path, cache, straight):
    workdir = tmp_path / "sweep"
    words = [f"--workdir={workdir}", *SMALL, cache, *GRID]
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(command(*words), cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 600
        second = workdir / "gamma=0,seed=1" / "metrics.jsonl"
        while not second.exists():  # in the middle of the second trial
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    states = [trial.end().state for trial in read_plan(workdir)]
    assert states[0] == FINISHED and states[2:] == [UNFINISHED, UNFINISHED]
    first = (workdir / "gamma=0,seed=0" / "metrics.jsonl").stat().st_mtime_ns
    assert run(f"--workdir={workdir}") == 0
    assert rows_of(workdir) == rows_of(straight)
    assert losses_of(workdir) == losses_of(straight)
    for name in ("report.md", "report.svg", "sweep.json"):
        assert (workdir / name).read_text() == (straight / name).read_text(), name
    assert (workdir / "gamma=0,seed=0" / "metrics.jsonl").stat().st_mtime_ns == first


@pytest.mark.slow
def test_workers_give_the_same_results(tmp_path, cache, straight):
    """Up to rounding: a worker has fewer cores, and XLA on the CPU splits sums by threads."""
    workdir, count = tmp_path / "sweep", min(2, len(os.sched_getaffinity(0)))
    words = ["--launcher=workers", f"--workers={count}"]
    assert run(f"--workdir={workdir}", *SMALL, cache, *GRID, *words) == 0
    ours, theirs = losses_of(workdir), losses_of(straight)
    assert list(ours) == list(theirs)
    for name, losses in theirs.items():
        assert [x for x in ours[name] if x] == pytest.approx([x for x in losses if x], rel=1e-4)
    logs = [path.read_text() for path in (workdir / "jobs").glob("*.out")]
    # Trials with the same compiled functions, in as many processes as asked for.
    assert len(logs) == count and sum(log.count("evaluating step 2") for log in logs) == 4
