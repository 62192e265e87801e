"""`retinanet-jax`: help, commands and their other names, flags passed on, errors."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from retinanet_jax import main as flags_of_runs
from retinanet_jax.cli import app, config_arguments, detect, inspect_data
from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.config.experiment_files import experiment_paths
from retinanet_jax.config.settings import default_config
from retinanet_jax.data.pipeline.prefetch import ExampleError
from retinanet_jax.reports.analysis import analyze_checkpoint
from retinanet_jax.reports.inspection import inspection_page


def exit_of(*arguments: str):
    with pytest.raises(SystemExit) as stopped:
        app.main(arguments)
    return stopped.value.code


def test_help_needs_no_jax_and_detection_no_library_of_training():
    program = """
import contextlib, io, sys
from retinanet_jax.cli.app import COMMANDS, main
for arguments in (["--help"], *([name, "--help"] for name in COMMANDS)):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main(arguments)
    assert "retinanet-jax " in said.getvalue(), arguments
heavy = {"jax", "flax", "numpy", "cv2", "absl", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
import retinanet_jax.cli.dataset_outputs, retinanet_jax.cli.detect_files
training = {"orbax", "tensorflow_datasets", "pycocotools", "matplotlib", "optax"}
assert not training & set(sys.modules), training & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_help_has_a_line_for_each_command_and_an_example_in_each(capsys):
    assert exit_of("--help") == 0
    table = capsys.readouterr().out
    for name in app.COMMANDS:
        assert exit_of(name, "--help") == 0
        said = capsys.readouterr().out
        assert re.search(rf"(?m)^ {{4}}retinanet-jax {name}( |$)", said)
        (line,) = (line for line in table.splitlines() if line.startswith(f"  {name} "))
        assert line.split(name, 1)[1].strip() in said


def test_unknown_commands_and_arguments_are_usage_errors(capsys):
    assert exit_of("detec") == 2 and "did you mean detect?" in capsys.readouterr().err
    assert exit_of("xyz") == 2 and "write one of train, find_lr" in capsys.readouterr().err
    assert exit_of() == 2 and "commands:" in capsys.readouterr().err
    assert exit_of("detect", "x.jpg", "--model=m", "--out=o", "--treshold=1") == 2
    expected = "unknown arguments: --treshold=1; did you mean --threshold?"
    assert expected in capsys.readouterr().err
    assert exit_of("detect", "x.jpg", "--model=m", "--out=o", "--format=csv,pdf") == 2
    assert "'pdf' is not one of images, coco, csv" in capsys.readouterr().err


def handed_on(monkeypatch, *arguments) -> list[str]:
    """What retinanet_jax.main gets from a command."""
    got = []
    monkeypatch.setattr(flags_of_runs, "run", got.append)
    app.main(arguments)
    return got[0]


def test_a_run_keeps_programs_and_names_the_code_of_its_experiment(monkeypatch, tmp_path):
    kept = []
    monkeypatch.setattr(flags_of_runs, "keep_compilations", lambda folder, shared: Path(folder))
    monkeypatch.setattr(flags_of_runs, "keep_traced_programs", lambda *found: kept.append(found))
    monkeypatch.setattr(flags_of_runs, "train_and_evaluate", lambda *_: None)
    words = ["--config=shapes:tiny", f"--workdir={tmp_path}", "--config.data.cache_dir=CACHE"]
    with pytest.raises(SystemExit):
        flags_of_runs.run(["retinanet-jax train", *words])
    flags_of_runs.keep_programs({}, tmp_path)  # an evaluation without --config
    (folder, experiments), (default, _) = kept
    assert folder == Path("CACHE") and experiment_paths()["shapes"].resolve() in experiments
    assert default == Path(DataConfig.cache_dir)


def test_train_passes_all_flags_to_main(monkeypatch):
    words = handed_on(
        monkeypatch,
        *("train", "--config", "e.py:small", "--config.train.steps=3", "--workdir=W", "--new=1"),
        *("--lr=1", "--data=d", "--name=n"),
    )
    assert words[0] == "retinanet-jax train"
    assert words[1:-2] == [
        *("--config=e.py:small", "--workdir=W", "--name=n", "--data=d", "--lr=1", "--mode=train"),
    ]
    assert words[-2:] == ["--config.train.steps=3", "--new=1"]


@pytest.mark.parametrize("command", ["evaluate", "eval", "val"])
@pytest.mark.parametrize("flag", ["--model", "--workdir"])
def test_evaluate_has_other_names(monkeypatch, command, flag):
    words = handed_on(monkeypatch, command, f"{flag}=W", "--step=3", "--config=e", "--new=1")
    expected = ["--config=e", "--workdir=W", "--step=3", "--mode=evaluate", "--new=1"]
    assert words == ["retinanet-jax evaluate", *expected]


def test_predict_is_detect(monkeypatch):
    got = []
    monkeypatch.setattr(detect, "run", got.append)
    app.main(["predict", "x.jpg", "--model=m", "--out=o"])
    assert got[0].inputs == ["x.jpg"]


def test_version_and_doctor(capsys):
    assert exit_of("--version") == 0
    assert "retinanet_jax " in capsys.readouterr().out
    app.main(["doctor"])
    report = capsys.readouterr().out
    assert f"python: {platform.python_version()}" in report and "device 0: cpu" in report
    assert re.search(r"packages: jax \d", report) and "cache of weights: " in report
    assert "extra tpu: missing libtpu; pip install 'retinanet_jax[tpu]'" in report


def test_expected_errors_are_one_line_and_others_a_traceback(monkeypatch):
    def fail(error):
        def run(_):
            raise error

        return run

    monkeypatch.setattr(detect, "run", fail(ExampleError("dataset d, example 3: broken")))
    arguments = ("detect", "x.jpg", "--model=m", "--out=o")
    assert exit_of(*arguments) == "ExampleError: dataset d, example 3: broken"
    monkeypatch.setattr(detect, "run", fail(RuntimeError("an error")))
    with pytest.raises(RuntimeError, match="an error"):
        app.main(arguments)
    monkeypatch.setattr(inspect_data, "run", fail(KeyboardInterrupt()))
    assert exit_of("inspect") == "interrupted"


def test_invalid_arguments_of_inspect_and_analyze_are_errors(capsys):
    assert exit_of("inspect") == 2 and "name an experiment" in capsys.readouterr().err
    assert exit_of("inspect", "tests") == 2
    assert exit_of("inspect", "--config=shapes", "tests") == 2
    assert "unknown arguments: tests; did you mean --data=tests?" in capsys.readouterr().err
    assert "--max_images: 0 must be at least 1" in exit_of(
        "inspect", "--config=e.py", "--max_images=0"
    )
    analyze = ("analyze", "--model=w")
    assert "--max_images: 0 must be at least 1" in exit_of(*analyze, "--max_images=0")
    assert exit_of(*analyze, "--threshold=1") == 2
    assert "--config.postprocess.score_threshold?" in capsys.readouterr().err
    assert "e.py" in exit_of(*analyze, "--config=e.py")


@pytest.mark.parametrize("command", ["analyze", "inspect"])
def test_an_invalid_out_of_a_page_is_an_error_before_the_work(command, tmp_path, monkeypatch):
    worked = []
    monkeypatch.setattr(analyze_checkpoint, "analyze_workdir", lambda *_, **__: worked.append(1))
    monkeypatch.setattr(inspection_page, "inspect_data", lambda *_, **__: worked.append(1))
    monkeypatch.setattr(config_arguments, "read_config", lambda *_: default_config())
    monkeypatch.setattr(config_arguments, "read_config_of_run", lambda *_: {})
    words = [command, f"--workdir={tmp_path}"] if command == "analyze" else [command]
    file = tmp_path / "file"
    file.write_text("of the user", encoding="utf-8")
    (tmp_path / "folder.html").mkdir()
    for out, message in (
        ("file/page.html", "cannot be written: {file} is a file; name another folder"),
        ("file", "does not end with .html; name an HTML file"),
        ("results.json", "does not end with .html; name an HTML file"),
        ("folder.html", "is a folder; name a file in it"),
    ):
        error = exit_of(*words, f"--out={tmp_path / out}")
        assert f"--out: {tmp_path / out} {message.format(file=file)}" in error
    assert not worked and file.read_text(encoding="utf-8") == "of the user"


def test_a_report_needs_a_sweep(tmp_path):
    assert "no such sweep; set --workdir to the folder" in exit_of(
        "report", f"--workdir={tmp_path}"
    )
