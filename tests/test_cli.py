"""`retinanet-jax`: its help, how commands are found, what they hand on, what errors look like."""

import subprocess
import sys

import pytest

from retinanet_jax import main as flags_of_runs
from retinanet_jax.cli import app, config_arguments, detect, inspect_data
from retinanet_jax.config.settings import default_config
from retinanet_jax.data.pipeline.prefetch import ExampleError
from retinanet_jax.reports.analysis import analyze_checkpoint
from retinanet_jax.reports.inspection import inspection_page


def exit_of(*arguments: str):
    with pytest.raises(SystemExit) as stopped:
        app.main(arguments)
    return stopped.value.code


def test_help_needs_no_jax():
    program = """
import contextlib, io, sys
from retinanet_jax.cli.app import COMMANDS, main
for arguments in (["--help"], *([name, "--help"] for name in COMMANDS)):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main(arguments)
    assert "retinanet-jax " in said.getvalue(), arguments
heavy = {"jax", "flax", "numpy", "cv2", "absl", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_help_has_a_line_for_each_command_and_an_example_in_each(capsys):
    assert exit_of("--help") == 0
    table = capsys.readouterr().out
    for name in app.COMMANDS:
        assert exit_of(name, "--help") == 0
        said = capsys.readouterr().out
        assert f"    retinanet-jax {name} " in said
        (line,) = (line for line in table.splitlines() if line.startswith(f"  {name} "))
        assert line.split(name, 1)[1].strip() in said


def test_unknown_commands_and_arguments_are_usage_errors(capsys):
    assert exit_of("detec") == 2 and "choose from" in capsys.readouterr().err
    assert exit_of() == 2 and "commands:" in capsys.readouterr().err
    assert exit_of("detect", "x.jpg", "--model=m", "--out=o", "--treshold=1") == 2
    assert "unknown arguments: --treshold=1" in capsys.readouterr().err
    assert exit_of("detect", "x.jpg", "--model=m", "--out=o", "--format=csv,pdf") == 2
    assert "'pdf' is not one of images, coco, csv" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_runs_are_handed_on_with_all_their_flags(command, monkeypatch):
    got = []
    monkeypatch.setattr(flags_of_runs, "run", got.append)
    app.main(
        [command, "--config", "e.py:small", "--config.train.steps=3", "--workdir=W", "--new=1"]
    )
    ((name, *flags),) = got
    assert name == f"retinanet-jax {command}"
    assert flags == [
        "--config=e.py:small",
        "--workdir=W",
        f"--mode={command}",
        "--config.train.steps=3",
        "--new=1",
    ]


def test_what_a_person_can_mend_is_a_line_and_a_fault_a_traceback(monkeypatch):
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


def test_what_is_missing_or_wrong_of_inspect_and_analyze_is_told():
    assert "name an experiment" in exit_of("inspect")
    assert "--max_images: 0 is not 1" in exit_of("inspect", "--config=e.py", "--max_images=0")
    analyze = ("analyze", "--workdir=w")
    assert "--max_images: 0 is not 1" in exit_of(*analyze, "--max_images=0")
    assert "name an experiment" in exit_of(*analyze, "--config.data.root=d")
    assert "e.py" in exit_of(*analyze, "--config=e.py")


@pytest.mark.parametrize("command", ["analyze", "inspect"])
def test_an_invalid_out_of_a_page_is_an_error_before_the_work(command, tmp_path, monkeypatch):
    worked = []
    monkeypatch.setattr(analyze_checkpoint, "analyze_workdir", lambda *_, **__: worked.append(1))
    monkeypatch.setattr(inspection_page, "inspect_data", lambda *_, **__: worked.append(1))
    monkeypatch.setattr(config_arguments, "read_config", lambda *_: default_config())
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
    assert "no sweep; name the folder of a sweep" in exit_of("report", f"--workdir={tmp_path}")
