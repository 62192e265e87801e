"""The command line as a person uses it: errors in one line, that say what to write."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "retinanet_jax.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config=experiments/shapes.py"], "workdir"),
        (["--config=nowhere.py", "--workdir=W"], "nowhere.py"),
        (["--config=experiments/shapes.py:big", "--workdir=W"], "variant 'big' is not one of"),
        (
            ["--config=experiments/shapes.py", "--workdir=W", "--config.model.bakbone=resnet18"],
            "config.model.bakbone: there is no such field; did you mean backbone?",
        ),
        (
            ["--config=experiments/shapes.py", "--workdir=W", "--config.model.backbone=resnet49"],
            "config.model.backbone: 'resnet49' is not one of resnet18",
        ),
        (["--config=experiments/folder.py", "--workdir=W"], "config.data.root: is empty"),
        (
            ["--config=experiments/folder.py:small", "--workdir=W", "--config.data.root=nowhere"],
            "nowhere",
        ),
        (
            ["--config=experiments/coco.py", "--workdir=W", "--config.data.root=nowhere"],
            "python scripts/prepare_data.py --dataset=coco",
        ),
        (
            ["--config=experiments/shapes.py", "--workdir=W", "--mode=evaluate"],
            "there is no checkpoint",
        ),
        (
            ["--config=experiments/shapes.py:tiny", "--workdir=W", "--replay=0"],
            "--replay=0: the run has the steps 1 to",
        ),
    ],
)
def test_errors_are_a_line_and_not_a_traceback(arguments, says, tmp_path):
    done = run(*[a.replace("=W", f"={tmp_path}") for a in arguments])
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
