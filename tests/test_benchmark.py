"""scripts/benchmark.py: rows, contestants, missing peers, and a tiny case of each benchmark."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
WITH_PACKAGE = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_ratios_are_taken_within_a_round_and_written_as_json(scripts, tmp_path, capsys):
    from benchmarks.rows import compare, print_table, write_json

    row = compare("case", [1.0, 3.0, 2.0], "peer", [2.0, 2.0, 8.0], memory_mb=10.4, device="cpu")
    assert row.ratio == (0.25, 0.5, 1.5) and row.ours_s == 2.0 and row.peer_s == 2.0
    print_table([row])
    assert (
        "| case | 2000.00 | peer | 2000.00 | 0.25 - 0.50 - 1.50 | 10 |" in capsys.readouterr().out
    )
    write_json([row], tmp_path / "rows.json")
    (written,) = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert {"case", "ours_s", "peer", "peer_s", "ratio", "memory_mb"} < set(written)
    assert {"peer_memory_mb", "limit_share", "device", "versions"} < set(written)


def test_a_contestant_works_on_request_and_a_missing_one_is_named(scripts, tmp_path, monkeypatch):
    from benchmarks import data
    from benchmarks.contestants import Contestant, MissingPeer

    monkeypatch.setattr(data, "IMAGES", 3)
    data.write_images(tmp_path / "images")
    sizes = [path.stat().st_size for path in (tmp_path / "images" / "images").iterdir()]
    assert len(sizes) == 3 and all(120_000 < size < 145_000 for size in sizes)
    with Contestant("data_decode", str(tmp_path / "images"), cores=range(1)) as contestant:
        for _ in range(2):
            found = contestant.round()
            assert 1e-4 < found["cpu_s"] < 1 and found["memory_mb"] > 10
    with pytest.raises(MissingPeer, match="no_such_contestant"):
        Contestant("no_such_contestant", cores=range(1), python=sys.executable)


@pytest.mark.parametrize(
    "name, sizes, peer",
    [
        ("loss", ["--anchors=60", "--classes=3"], "optax"),
        ("postprocess", ["--shrink=16", "--classes=3"], ""),
        ("nms", ["--boxes=50", "--outputs=7"], "NumPy"),
        ("eval", ["--images=5"], "pycocotools"),
        pytest.param("infer", ["--cases=64x1", "--backbone=resnet18"], "", marks=pytest.mark.slow),
        pytest.param(
            "detect",
            ["--count=2", "--size=64", "--backbone=resnet18"],
            "bare",
            marks=pytest.mark.slow,
        ),
        pytest.param("train", ["--cases=64x1", "--backbone=resnet18"], "", marks=pytest.mark.slow),
        pytest.param(
            "gpu",
            ["--cases=64x96x1", "--remat_cases=64x96x2", "--backbone=resnet18", "--shrink=16"],
            "NumPy",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "tpu",
            ["--cases=64x96x1", "--remat_cases=", "--backbone=resnet18", "--shrink=16"],
            "",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_contestants_have_the_same_results(scripts, tmp_path, monkeypatch, name, sizes, peer):
    import benchmark

    rows = tmp_path / "rows.json"
    arguments = [name, *sizes, "--cores=1", "--rounds=1", f"--json={rows}"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    benchmark.main()
    *before, row = json.loads(rows.read_text(encoding="utf-8"))
    network = {"gpu": ["forward", "infer", "train", "train"], "tpu": ["forward", "infer", "train"]}
    if name in network:  # a part that fails is left out there
        labels = [one["case"].partition(",")[0] for one in before]
        assert labels[: len(network[name])] == network[name]
    assert row["ours_s"] > 0 and row["memory_mb"] > 10 and peer in row["peer"]


def test_each_peer_and_the_network_alone_have_a_row(scripts):
    from benchmarks import network

    ours = {"wall_s": [0.2, 0.4], "forward_wall_s": [0.16, 0.32], "rate": [1e12] * 2}
    ours |= {"device": ["some GPU"] * 2, "memory_mb": [640.0] * 2}
    ours |= {"planned_ms": [150.0] * 2, "planned_memory_mb": [600.0] * 2}
    slow = {"wall_s": [1.0, 1.0], "memory_mb": [1280.0] * 2, "name": ["slow"]}
    fast = slow | {"wall_s": [0.8, 0.8], "name": ["fast"]}
    arguments = SimpleNamespace(dtype="bfloat16", remat="none", backbone="resnet50")
    case = network.parse_case("640x640x2")
    assert case == network.parse_case("640x2")
    found = {"ours": ours, "slow": slow, "fast": fast}
    forward, first, second = network._rows("infer", case, 2, found, arguments)
    assert forward.case == "forward, 640x640, batch 2, bfloat16: time" and not forward.peer
    assert forward.limit_share == pytest.approx(2 * 190.7e9 / 0.24 / 1e12)
    assert (first.peer, second.peer) == ("fast", "slow") and first.ratio == (0.25, 0.375, 0.5)
    assert first.on_top == pytest.approx(0.25)
    assert (first.planned_ms, first.planned_memory_mb) == (150, 600) and not forward.planned_ms
    assert (first.memory_per_image_mb, first.peer_memory_per_image_mb) == (320, 640)
    with pytest.raises(SystemExit, match="'640' is neither SIZExBATCH nor"):
        network.parse_case("640")


def test_a_peer_with_another_result_is_an_error(scripts):
    from benchmarks import ops

    ours = {"cpu_s": [1.0], "memory_mb": [1.0], "temporary": [1.0], "result": [3.0]}
    ours["device"] = ["cpu"]
    with pytest.raises(AssertionError, match="Not equal"):
        ops._rows("sum", 1, {"ours": ours, "peer": {**ours, "result": [3.1], "name": ["other"]}})


TINY = """
from retinanet_jax.config.settings import default_config

def get_config(variant=""):
    config = default_config()
    config.data.name = "shapes"
    config.update_from_flattened_dict({
        "data.shapes.image_size": (64, 64), "data.shapes.num_train": 8, "data.shapes.num_eval": 2,
        "pipeline.min_side": 64, "pipeline.max_side": 64, "model.backbone": "resnet18",
        "model.backbone_levels": (3,), "model.max_level": 3, "model.fpn_channels": 8,
        "model.head_channels": 8, "model.norm": "batch", "model.frozen_stages": 0,
        "model.head_depth": 1, "optimizer.warmup_steps": 0,
        "train.steps": 2, "train.batch_size": 2, "evaluation.batch_size": 2,
    })
    return config
"""


@pytest.mark.slow
def test_the_second_start_is_measured_until_its_first_step(scripts, tmp_path, monkeypatch):
    from benchmarks import startup

    config = tmp_path / "tiny.py"
    config.write_text(TINY, encoding="utf-8")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "elsewhere"))
    cpu, wall = startup.run(SimpleNamespace(config=str(config), rounds=1))
    assert 0.5 < cpu.ours_s < cpu.peer_s and wall.ours_s > 0.5
    assert cpu.memory_mb > 100 and not (tmp_path / "elsewhere").exists()


def test_a_failed_start_raises_its_output(scripts, tmp_path):
    from benchmarks import startup

    with pytest.raises(RuntimeError, match=r"(?s)before its first step.*no_such\.py"):
        startup.run(SimpleNamespace(config="no_such.py", rounds=1))


@pytest.mark.slow
def test_a_trial_of_a_sweep_is_compared_with_a_single_run(scripts, tmp_path):
    from benchmarks import sweep

    config = tmp_path / "tiny.py"
    config.write_text(TINY, encoding="utf-8")
    (row,) = sweep.run(SimpleNamespace(config=str(config), rounds=1, cores=1))
    # CPU time on one core. Compilation takes many times longer than these two steps.
    assert row.ours_s > 0 and 0.1 < row.ratio[1] < 5 and row.memory_mb > 100


BARE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {
            "tensorflow_datasets", "array_record", "pycocotools", "tensorboardX"
        }:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Refuse())
import benchmarks.network_ours, benchmarks.ops_ours, benchmark
"""


def test_the_network_is_measured_without_the_packages_of_data_and_scoring(scripts):
    """A GPU machine needs JAX and PyTorch, and no packages of the data pipeline."""
    subprocess.run([sys.executable, "-c", BARE], cwd=SCRIPTS, env=WITH_PACKAGE, check=True)
