"""`retinanet-jax import` as a user runs it: the Detector reads what it writes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import golden_models
import jax
import numpy as np
import pytest

from retinanet_jax.cli import app
from retinanet_jax.cli.import_weights import class_names_of
from retinanet_jax.config.settings import from_json
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.workdir import locked
from retinanet_jax.weights import PUBLIC_WEIGHTS, load_checkpoint
from retinanet_jax.weights.run_weights import describe, read_variables

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # installed or not
    command = [sys.executable, "-m", "retinanet_jax", "import", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def checkpoint(golden_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("public") / "model.npz"
    np.savez(path, **golden_models.state_dict(golden_dir, "retinanet_resnet18_fpn"))
    return path


def test_import_and_one_image(checkpoint, golden_dir, tmp_path):
    image, workdir = golden_models.images(golden_dir)[0], tmp_path / "workdir"
    cv2.imwrite(str(tmp_path / "image.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    done = run(
        f"--checkpoint={checkpoint}",
        f"--workdir={workdir}",
        f"--image={tmp_path / 'image.png'}",
        "--min_side=96",
        "--max_side=160",
        "--score=0.0",
        "--class_names=coco",
    )
    assert done.returncode == 0, done.stderr
    assert "recipe: torchvision_v1\n" in done.stdout
    assert "loaded: backbone, box_head, class_head, fpn" in done.stdout
    assert "unused in the checkpoint: classes 0, 12, " in done.stdout
    assert "x1 y1 x2 y2:" in done.stdout
    assert re.search(r", ([1-9]\d*) of \1 detections", done.stdout)
    drawn = cv2.imread(str(workdir / "detections.png"))
    assert drawn is not None and drawn.std() > 1

    loaded = load_checkpoint(checkpoint, class_names="coco")
    checkpoints = Checkpoints(workdir / "checkpoints")
    config, categories = describe(checkpoints)
    assert config == from_json((workdir / "config.json").read_text())
    assert (config.pipeline.min_side, config.pipeline.max_side) == (96, 160)
    assert categories == loaded.categories and config.anchors == loaded.config.anchors
    stored = read_variables(checkpoints)
    jax.tree.map(np.testing.assert_array_equal, stored, loaded.variables)


def test_a_workdir_in_which_a_run_trains_is_left_alone(checkpoint, tmp_path):
    with locked(tmp_path):
        done = run(f"--checkpoint={checkpoint}", f"--workdir={tmp_path}")
    assert done.returncode == 1 and "WorkdirError" in done.stderr
    assert "in use by another run" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--checkpoint=nowhere.pth"], "WeightsError: nowhere.pth: does not exist"),
        (["--checkpoint=FILE", "--source=detectron2"], "does not fit its keys"),
        (["--checkpoint=FILE", "--min_side=900", "--max_side=800"], "pipeline.max_side: 800"),
    ],
)
def test_errors_are_a_line(arguments, says, checkpoint, tmp_path):
    arguments = [argument.replace("FILE", str(checkpoint)) for argument in arguments]
    done = run(*arguments, f"--workdir={tmp_path}")
    assert done.returncode != 0 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("names", ["cat, dog, ...", "FILE"])
def test_class_names_of_the_command_line(names, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("cat\ndog\n\n...\n", encoding="utf-8")
    assert class_names_of(names.replace("FILE", str(path))) == ("cat", "dog", "...")
    assert class_names_of("coco") == "coco" and class_names_of(None) is None


def test_weights_lists_names_and_what_is_cached(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RETINANET_JAX_CACHE", str(tmp_path))
    cached = tmp_path / "weights" / "resnet50-0676ba61.pth"
    cached.parent.mkdir()
    cached.write_bytes(b"x")
    app.main(["weights", "resnet50"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["torchvision/resnet50.imagenet1k_v1", "98", "BSD-3-Clause", "yes", "yes"] in lines
    assert ["torchvision/resnet50.imagenet1k_v2", "98", "BSD-3-Clause", "yes"] in lines
    assert ["timm/resnet50.a1_in1k", "-", "Apache-2.0", "yes"] in lines
    assert not any("resnet18" in word for line in lines for word in line)
    app.main(["weights"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in PUBLIC_WEIGHTS)
