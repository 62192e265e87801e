"""The command line of a run: one-line errors that say what to write, names of experiments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from retinanet_jax.config.experiment_files import experiment_name, experiment_paths, load_experiment
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.main import describe_error

ROOT = Path(__file__).parent.parent


# One process that forks for each command line once everything is imported: absl's flags are global.
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

USAGE = [  # missing or unknown arguments
    ([], "--data or --config is missing: name a folder, or an experiment"),
    (["--data=nowhere", "--workdir=W", "--epoch=2"], "--epoch: no such flag; did you mean --epoch"),
    (["--mode=evaluate"], "--workdir is missing"),
    (
        ["experiments/shapes.py:tiny", "--workdir=W"],
        "did you mean --config=experiments/shapes.py:tiny?",
    ),
    (
        ["--config=shapes", "--workdir=W", "--train.steps=3"],
        "--train.steps: no such flag; did you mean --config.train.steps?",
    ),
    (
        ["--config=shapes", "--workdir=W", "--learning_rate=1"],
        "did you mean --config.optimizer.learning_rate?",
    ),
    (["--workdir=W", "--config.train.steps=3"], "set --config=EXPERIMENT as well"),
    (["tests", "--workdir=W"], "unknown arguments: tests; did you mean --data=tests?"),
    (
        ["--workdir=W", "--mode=evaluate", "--threshold=1"],
        "--threshold: no such flag; did you mean --config.postprocess.score_threshold?",
    ),
]
CASES = [
    (["--data=nowhere", "--epochs=2", "--steps=3"], "--epochs=2 and --steps=3: a run has one"),
    (["--data=nowhere", "--workdir=W"], "nowhere"),
    (["--data=nowhere", "--workdir=W", "--name=a"], "--workdir and --name: set only one of them"),
    (["--config=shapes", "--data=d", "--workdir=W"], "'shapes' draws its own images"),
    (["--data=d", "--coordinator=h:1"], "with --coordinator, add :resnet50 or :small"),
    (["--config=nowhere.py", "--workdir=W"], f"no such file: nowhere.py in {ROOT}"),
    (
        ["--config=experiments/shape.py", "--workdir=W"],
        "no such file: experiments/shape.py; did you mean experiments/shapes.py?",
    ),
    (["--config=shape"], "no such file: shape; did you mean shapes?"),
    (["--config", "shape"], "experiments by name: coco, folder, shapes, voc, paper/prior"),
    (["--config=README.md", "--workdir=W"], "README.md is not a Python file"),
    (["--config=tests/documents.py", "--workdir=W"], "documents.py has no function get_config()"),
    (["--config.train.steps=0", "--workdir=W", "--config=shapes"], "config.train.steps: 0 must be"),
    (
        ["--config=shapes", "--workdir=W", "--config.train.steps=abc"],
        "config.train.steps: 'abc' is invalid; write a whole number or 'auto'",
    ),
    (["--config=shapes:big", "--workdir=W"], "variant 'big' is not one of"),
    (["--config=folder:smal", "--workdir=W"], "'modern'; did you mean 'small'?"),
    (
        ["--config=shapes", "--workdir=W", "--config.augmentation.flip=yes"],
        "--config.augmentation.flip: 'yes' is invalid; write True or False",
    ),
    (
        ["--mode=evaluate", "--workdir=W", "--config.model.bakbone=resnet18"],
        "config.model.bakbone: no such field; did you mean backbone?",
    ),
    (
        ["--config=shapes", "--workdir=W", "--config.model.bakbone=resnet18"],
        "config.model.bakbone: no such field; did you mean backbone?",
    ),
    (
        ["--config=experiments/shapes.py", "--workdir=W", "--config.model.backbone=resnet49"],
        "config.model.backbone: 'resnet49' is not one of resnet18",
    ),
    (["--config=folder", "--workdir=W"], "config.data.root: is empty"),
    (["--config=folder:small", "--workdir=W", "--config.data.root=nowhere"], "nowhere"),
    (
        ["--config=coco", "--workdir=W", "--config.data.root=nowhere"],
        "retinanet-jax prepare --dataset=coco",
    ),
    (
        ["--config=voc", "--workdir=W", "--config.data.annotations=a.json"],
        "config.data.annotations: not supported for voc",
    ),
    (["--workdir=W", "--mode=evaluate"], "no checkpoint"),
    (["--workdir=W", "--mode=evaluate", "--flip", "--tile=none"], "no checkpoint"),
    (["--config=shapes", "--workdir=W", "--flip"], "--flip: only applies to --mode=evaluate"),
    (["--workdir=W", "--mode=evaluate", "--scales=1,a"], "--scales=1,a: not a list of numbers"),
    (["--workdir=W", "--mode=evaluate", "--scales=0"], "scales: (0.0,) is not a list of positive"),
    (["--workdir=W", "--mode=evaluate", "--tile=big"], "--tile=big: not a number of pixels or"),
    (["--config=shapes:tiny", "--workdir=W", "--replay=0"], "--replay=0: not a step of the run"),
    (["--config=shapes:tiny", "--mode=evaluate"], "workdir: runs/shapes_tiny\n"),
]


@pytest.mark.extended
def test_errors_are_one_line_without_a_traceback(tmp_path):
    given = [[word.replace("=W", f"={tmp_path}") for word in words] for words, _ in USAGE + CASES]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(given),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    outputs = done.stdout.split("ended: ")
    assert len(outputs) == len(given) + 1, done.stderr
    codes = [int(text.split()[0]) for text in outputs[1:]]
    wanted = [2] * len(USAGE) + [1] * len(CASES)
    assert codes == wanted, [w for w, a, b in zip(given, codes, wanted, strict=True) if a != b]
    for (words, expected), text in zip(USAGE + CASES, outputs, strict=False):
        assert expected in text and "Traceback" not in text, (words, text)


def test_the_file_runs_as_a_script_from_anywhere(tmp_path):
    """The folder of the script shadows no module; stdout takes any text in any locale."""
    script = str(ROOT / "retinanet_jax/main.py")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, script, "--config=vélo"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "no such file: v" in done.stderr and "Traceback" not in done.stderr


def test_experiments_have_names_that_work_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"coco", "folder", "shapes", "voc", "paper/table1b"} <= set(experiment_paths())
    for location in (
        "shapes:tiny",
        "experiments/shapes.py:tiny",
        f"{ROOT}/experiments/shapes.py:tiny",
    ):
        assert load_experiment(location).train.steps == 30
        assert experiment_name(location) == "shapes_tiny"
    assert experiment_name("coco") == "coco"
    code = "from retinanet_jax.config.settings import default_config as get_config\n"
    (tmp_path / "shapes.py").write_text(code)
    assert load_experiment("shapes.py").data.name == "shapes"  # your own file comes first
    assert load_experiment("shapes.py").train.steps == 90_000


def test_an_error_in_an_experiment_is_reported_with_its_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\ny = x.nothing\n")
    with pytest.raises(
        ConfigError, match=r"broken\.py raised an error:(.|\n)*line 2(.|\n)*nothing"
    ):
        load_experiment(str(path))
    path.write_text("x = (\n")
    with pytest.raises(ConfigError, match="never closed"):
        load_experiment(str(path))


def test_out_of_memory_names_the_settings_that_use_less():
    error = jax.errors.JaxRuntimeError
    message, code = describe_error(
        error("RESOURCE_EXHAUSTED: Out of memory allocating 42 bytes.\nmore")
    )
    assert code == 1
    assert message.startswith("RESOURCE_EXHAUSTED: Out of memory allocating 42 bytes.")
    assert "--config.train.batch_size" in message and "more" not in message
    assert describe_error(error("INTERNAL: an error")) is None
