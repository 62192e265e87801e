"""Processes that are killed at random moments leave no harm.

A download, the index of a folder, a learning-rate test, a sweep in one process, one by submitit.
tests/test_training_reliability.py kills training runs.
"""

import csv
import hashlib
import http.server
import json
import multiprocessing
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import stand_in_work
from data_settings import data_settings
from local_server import serving
from small import small_config
from sweeps import ROOT, SMALL, run

from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.runtime.download import download
from retinanet_jax.sweep import run_trial, workers
from retinanet_jax.sweep.trials import FINISHED, read_plan
from retinanet_jax.training import auto_learning_rate
from retinanet_jax.training.evaluation import Evaluation
from retinanet_jax.training.learning_rate_test import RangeTest

pytestmark = pytest.mark.slow
KILLS = 35
CONTENT = np.random.default_rng(0).bytes(2_000_000)
PIECE = 20_000  # bytes that the server sends at a time


@pytest.fixture(scope="module")
def processes():
    """New processes have the modules loaded, so that kills hit their work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def kill_at_random(
    processes, work, arguments, longest: float, seed: int, kills: int = KILLS
) -> int:
    """Starts `work` `kills` times and kills it; returns how often it ended before."""
    rng, ended = np.random.default_rng(seed), 0
    for _ in range(kills):
        process = processes.Process(target=work, args=arguments)
        process.start()
        time.sleep(rng.uniform(0, longest))
        process.kill()
        process.join()
        ended += process.exitcode == 0
    return ended


class SlowServer(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT, or the rest of it, in small pieces."""

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        for place in range(start, len(CONTENT), PIECE):
            try:
                self.wfile.write(CONTENT[place : place + PIECE])
            except OSError:  # the client was killed
                return
            time.sleep(0.002)

    def log_message(self, *_):
        pass


def test_a_download_that_is_killed_again_and_again_gives_the_file(processes, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    target, digest = tmp_path / "weights.pth", hashlib.sha256(CONTENT).hexdigest()
    with serving(SlowServer) as server:
        url = f"http://127.0.0.1:{server.server_port}/weights.pth"
        ended = kill_at_random(processes, fetch, (url, target, digest), longest=0.15, seed=1)
        assert download(url, target, sha256=digest) == digest
    assert ended < KILLS and target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def fetch(url: str, target: Path, digest: str) -> None:
    if not target.exists():
        download(url, target, sha256=digest)


def write_folder(root: Path) -> None:
    """300 images with a YOLO label each."""
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(300):
        cv2.imwrite(str(root / f"images/train/{i}.png"), rng.integers(0, 256, (8, 8, 3), np.uint8))
        (root / f"labels/train/{i}.txt").write_text(f"{i % 3} 0.5 0.5 {0.2 + i / 600} 0.4\n")
    (root / "classes.txt").write_text("ant\nbee\ncat\n")


def index(root: Path, cache: Path) -> None:
    load_dataset(data_settings("folder", root, cache), "train")


def test_an_index_that_is_killed_again_and_again_is_whole(processes, tmp_path):
    root = tmp_path / "folder"
    write_folder(root)
    kill_at_random(processes, index, (root, tmp_path / "cache"), longest=0.25, seed=2)
    after, straight = (
        load_dataset(data_settings("folder", root, tmp_path / name), "train")
        for name in ("cache", "another_cache")
    )
    assert after.ground_truth() == straight.ground_truth()
    assert len(after.source) == len(straight.source) > 250
    leftovers = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert len(leftovers) <= 1 + len([p for p in (tmp_path / "another_cache").rglob("*")])


def quick_sweep(workdir: Path) -> None:
    """A sweep of six trials that sleep instead of training; AP is a function of gamma."""

    def train(config, workdir, cache):
        time.sleep(0.02)
        return Evaluation({"AP": config.loss.gamma / 10}, {}, [])

    run_trial.train_and_evaluate = train
    run(f"--workdir={workdir}", *SMALL, "--grid", "loss.gamma=0,0.5,1,2,3,5")


def assert_every_result(workdir: Path) -> None:
    """All six trials have finished, and the report has their AP."""
    assert {trial.end().state for trial in read_plan(workdir)} == {FINISHED}
    with (workdir / "report.csv").open(encoding="utf-8") as file:
        values = [float(row["AP"]) for row in csv.DictReader(file)]
    assert values == pytest.approx([0, 0.05, 0.1, 0.2, 0.3, 0.5])


def test_a_sweep_that_is_killed_again_and_again_has_every_result(processes, tmp_path):
    workdir = tmp_path / "sweep"
    kill_at_random(processes, quick_sweep, (workdir,), longest=0.4, seed=3)
    last = processes.Process(target=quick_sweep, args=(workdir,))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert_every_result(workdir)


def find_rate(workdir: Path) -> None:
    """A run with learning_rate='auto', up to its first step; its range test takes 20 ms."""

    def found(config, *, dataset, log, functions):
        time.sleep(0.02)
        return RangeTest([1e-3] * 1000, [1.0] * 1000, [1.0] * 1000, 0.01)

    auto_learning_rate.learning_rate_test = found
    config = small_config(optimizer__learning_rate="auto")
    auto_learning_rate.with_learning_rate(config, object(), workdir, lambda line: None)


def test_a_learning_rate_test_that_is_killed_again_and_again_gives_its_rate(processes, tmp_path):
    kill_at_random(processes, find_rate, (tmp_path,), longest=0.1, seed=4)
    find_rate(tmp_path)
    stored = json.loads((tmp_path / auto_learning_rate.FILE).read_text(encoding="utf-8"))
    assert stored["learning_rate"] == 0.01


def submitted_sweep(workdir: Path) -> None:
    """A sweep of six trials in two processes of submitit; AP is a function of gamma."""
    # The processes of submitit find the stand-in.
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{Path(__file__).parent}"
    workers.Work = stand_in_work.ScoredWork
    words = [f"--workdir={workdir}", *SMALL, "--grid", "loss.gamma=0,0.5,1,2,3,5"]
    run(*words, "--launcher=workers", "--workers=2")


def test_a_sweep_by_submitit_that_is_killed_again_and_again_has_every_result(processes, tmp_path):
    workdir = tmp_path / "sweep"
    # A worker takes seconds to start, and one that is left stops by itself.
    kill_at_random(processes, submitted_sweep, (workdir,), longest=20, seed=5, kills=10)
    last = processes.Process(target=submitted_sweep, args=(workdir,))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert_every_result(workdir)
