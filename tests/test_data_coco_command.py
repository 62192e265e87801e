"""The command of COCO's model card, in a fresh home: prepared data and weights by default."""

import functools
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import golden_models
import numpy as np
import pytest
from local_server import serving
from releases import write_coco

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.store.coco_release import prepare_coco
from retinanet_jax.data.store.find_prepared import find_prepared
from retinanet_jax.weights import PUBLIC_WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ["--config=experiments/coco.py"]
# For the CPU alone: a few steps at low resolution.
FASTER = [
    *("--config.train.steps=2", "--config.train.batch_size=2", "--config.pipeline.min_side=64"),
    *("--config.pipeline.max_side=64", "--config.augmentation.scales=()"),
    *("--config.optimizer.warmup_steps=0", "--config.evaluation.batch_size=1"),
]
# The hash of the published file cannot be met by another one: the table states that of the
# stand-in, and everything else is as installed.
PROGRAM = """
import sys
from retinanet_jax import main
from retinanet_jax.weights import PUBLIC_WEIGHTS
name, sha256, mib = sys.argv[1:4]
PUBLIC_WEIGHTS[name] = PUBLIC_WEIGHTS[name]._replace(sha256=sha256, mib=float(mib))
main.run(["main", *sys.argv[4:]])
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path


def run(home: Path, mirror: str, content: bytes, arguments: list[str]):
    """The command in a process of its own, whose home and working directory are fresh."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RETINANET_", "XDG_"))}
    environment = kept | {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "RETINANET_JAX_MIRROR": mirror,
        "no_proxy": "127.0.0.1",
    }
    name = "torchvision/resnet50.imagenet1k_v1"
    facts = [name, hashlib.sha256(content).hexdigest()[:8], f"{len(content) / 2**20:.3f}"]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *facts, *arguments],
        cwd=home / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_missing_data_name_the_size_of_a_download_and_its_flag(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(DataError) as error:
        find_prepared("", "coco/2017", "coco")
    message = str(error.value)
    assert f"no prepared dataset in {home}/tensorflow_datasets/coco/2017" in message
    assert re.search(
        r"add --download to download 20\.\d GB of archives .* \(41 GB of disk", message
    )
    assert not (home / "tensorflow_datasets").exists()


@pytest.mark.slow
def test_the_command_of_the_card_runs_with_nothing_else(home, shared_dir, golden_dir):
    source = write_coco(shared_dir / "cases" / "base", home / "coco")
    prepare_coco("2017", source, home / "tensorflow_datasets", "skip")
    np.savez(home / "state.npz", **golden_models.state_dict(golden_dir, "resnet50"))
    content = (home / "state.npz").read_bytes()
    weights = PUBLIC_WEIGHTS["torchvision/resnet50.imagenet1k_v1"]
    file = home / "host" / weights.url.removeprefix("https://")
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=home / "host")
    with serving(handler) as server:
        mirror = f"http://127.0.0.1:{server.server_port}"
        done = run(home, mirror, content, COMMAND + FASTER)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "workdir: runs/coco" in done.stdout
    assert f"imagenet: {weights.name}" in done.stdout
    results = json.loads((home / "work/runs/coco/results.json").read_text(encoding="utf-8"))
    assert results
    config = json.loads((home / "work/runs/coco/config.json").read_text(encoding="utf-8"))
    assert config["model"]["backbone"] == "resnet50" and config["data"]["root"] == ""
    cached = list((home / ".cache/retinanet_jax").rglob("resnet50-0676ba61.pth"))
    assert [path.read_bytes() == content for path in cached] == [True]
