"""scripts/scaling.py against numbers worked out by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import scaling

    return scaling


ROUND = {
    "images_per_chip": 10,
    "step_s": 0.1,
    "predict_s": 0.01,
    "image_cpu_s": 0.004,
    "score_image_s": 0.001,
    "gradient_bytes": 160e6,
    "state_bytes": 300e6,
    "chips_per_host": 4,
    "cores_per_host": 2,
    "inside_bandwidth": 100e9,
    "outside_bandwidth": 10e9,
    "copy_bandwidth": 30e9,
    "disk_bandwidth": 1e9,
    "evaluation_images": 1000,
    "images_between_evaluations": 1600,
}


def test_one_host_by_hand(scaling):
    e = scaling.estimate(4, scaling.Inputs(**ROUND))
    assert e.batch == 40
    # 2 * 3/4 * 160 MB / 100 GB/s
    assert e.all_reduce == pytest.approx(2.4e-3)
    # 40 images * 4 ms on 2 cores: less than the compute, so that nobody waits
    assert e.input == pytest.approx(0.080) and e.waits()["input"] == 0
    # 1000 * 10 ms on 4 chips + 1000 * 1 ms, each 1600 / 40 = 40 steps
    assert e.evaluation == pytest.approx(2.5 + 1.0)
    assert e.evaluation_per_step == pytest.approx(3.5 / 40)
    # 10 ms to copy and 300 ms to write, which is over long before the next
    assert e.checkpoint == pytest.approx(0.31)
    assert e.checkpoint_per_step == pytest.approx(0.010 / 40)
    assert e.step == pytest.approx(0.1 + 2.4e-3 + 0.0875 + 0.00025)
    assert e.bottleneck == "evaluation"


def test_four_hosts_by_hand(scaling):
    e = scaling.estimate(16, scaling.Inputs(**ROUND | {"cores_per_host": 1}))
    # as above, and 2 * 3/4 * (160 MB / 4) / 10 GB/s between the hosts
    assert e.all_reduce == pytest.approx(2.4e-3 + 6e-3)
    # 40 images of a host * 4 ms on one core, of which 108.4 ms pass beside compute and all-reduce
    assert e.waits()["input"] == pytest.approx(0.160 - 0.1084)
    # 10 steps between evaluations; 1000 * 10 ms / 16 + 1 s
    assert e.evaluation_per_step == pytest.approx(0.1625)


def test_a_disk_slower_than_the_steps_between_checkpoints_is_waited_for(scaling):
    e = scaling.estimate(4, scaling.Inputs(**ROUND | {"disk_bandwidth": 10e6}))
    # 30 s to write; 40 steps of 102.4 ms and an evaluation of 3.5 s pass meanwhile
    assert e.checkpoint_per_step * 40 == pytest.approx(0.010 + 30 - 40 * 0.1024 - 3.5)
    assert e.bottleneck == "checkpoint"


def test_one_chip_sums_nothing(scaling):
    assert scaling.all_reduce_s(1, scaling.Inputs(**ROUND)) == 0


def test_the_command_takes_what_the_benchmark_wrote(tmp_path):
    cases = {
        "train": ("train, 640x640, batch 2, float32: CPU, 1 core", 0.5),
        "infer": ("infer, 640x640, batch 4, float32: time, 2 cores", 0.2),
        "data": ("800/1333, 1 core: CPU per image", 0.003),
        "eval": ("AP of 1,000 x 100 detections: CPU, 1 core", 0.25),
    }
    command = [sys.executable, str(SCRIPTS / "scaling.py"), "--chips=1", "--step_s=0.4"]
    for name, (case, seconds) in cases.items():
        file = tmp_path / f"{name}.json"
        file.write_text(
            json.dumps([{"case": "other", "ours_s": 9}, {"case": case, "ours_s": seconds}])
        )
        command.append(f"--{name}_json={file}")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in (
        "images_per_chip: 2",
        "step_s: 0.4",  # a flag goes before a file
        "predict_s: 0.05",
        "image_cpu_s: 0.003",
        "score_image_s: 0.00025",
    ):
        assert line in done.stdout.splitlines()
    assert "\n| 1 | 2 | 400.00 | 0.00 |" in done.stdout


def test_a_file_without_such_a_row_says_so(tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    command = [sys.executable, SCRIPTS / "scaling.py", f"--data_json={tmp_path / 'rows.json'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "no row's case has the form" in done.stderr
    assert "Traceback" not in done.stderr
