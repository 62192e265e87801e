"""The command line as a person uses it: errors in one line, that say what to write."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from retinanet_jax.config.experiment_files import load_experiment
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.main import tell

ROOT = Path(__file__).parent.parent


# Each command line in a process of its own, forked when all is imported: absl's flags are global.
PROGRAM = """
import json, os, sys
from retinanet_jax import main
for arguments in json.load(sys.stdin):
    if not os.fork():
        os.dup2(1, 2)
        sys.argv = ["main", *arguments]
        main.run()
    _, status = os.wait()
    print("\\nended:", os.waitstatus_to_exitcode(status), flush=True)
"""

CASES = [
    ([], "--config is missing: name an experiment file"),
    (["--config=experiments/shapes.py"], "--workdir is missing: name the folder of the run"),
    (["--mode=evaluate"], "--workdir is missing"),
    (["--config=nowhere.py", "--workdir=W"], f"there is no file nowhere.py in {ROOT}"),
    (
        ["--config=experiments/shape.py", "--workdir=W"],
        "there is no file experiments/shape.py; did you mean experiments/shapes.py?",
    ),
    (["--config=README.md", "--workdir=W"], "README.md is not a Python file"),
    (["--config=tests/documents.py", "--workdir=W"], "documents.py has no function get_config()"),
    (
        ["experiments/shapes.py:tiny", "--workdir=W"],
        "did you mean --config=experiments/shapes.py:tiny?",
    ),
    (
        ["--config=experiments/shapes.py", "--workdir=W", "--train.steps=3"],
        "--train.steps: there is no such flag; did you mean --config.train.steps?",
    ),
    (
        ["--config=experiments/shapes.py", "--workdir=W", "--learning_rate=1"],
        "did you mean --config.optimizer.learning_rate?",
    ),
    (["--workdir=W", "--config.train.steps=3"], "the experiment file: --config=FILE.py"),
    (
        ["--config=experiments/shapes.py", "--workdir=W", "--config.train.steps=abc"],
        "--config.train.steps=abc: invalid literal for int",
    ),
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
        "retinanet-jax prepare --dataset=coco",
    ),
    (["--workdir=W", "--mode=evaluate"], "there is no checkpoint"),
    (
        ["--config=experiments/shapes.py:tiny", "--workdir=W", "--replay=0"],
        "--replay=0: the run has the steps 1 to",
    ),
]


def test_errors_are_a_line_and_not_a_traceback(tmp_path):
    given = [[word.replace("=W", f"={tmp_path}") for word in words] for words, _ in CASES]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(given),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    told = done.stdout.split("ended: ")
    assert len(told) == len(CASES) + 1, done.stderr
    codes = [int(text.split()[0]) for text in told[1:]]
    for (words, says), text, code in zip(CASES, told, codes, strict=False):
        assert says in text and "Traceback" not in text and code == 1, (words, text, code)


def test_a_fault_in_an_experiment_is_told_with_its_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\ny = x.nothing\n")
    with pytest.raises(ConfigError, match=r"broken\.py cannot be run:(.|\n)*line 2(.|\n)*nothing"):
        load_experiment(str(path))
    path.write_text("x = (\n")
    with pytest.raises(ConfigError, match="never closed"):
        load_experiment(str(path))


def test_memory_that_is_not_enough_is_told_with_the_fix():
    error = jax.errors.JaxRuntimeError
    words, code = tell(error("RESOURCE_EXHAUSTED: Out of memory allocating 42 bytes.\nmore"))
    assert code == 1 and words.startswith("RESOURCE_EXHAUSTED: Out of memory allocating 42 bytes.")
    assert "--config.train.batch_size" in words and "more" not in words
    assert tell(error("INTERNAL: an error")) is None
