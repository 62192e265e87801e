"""The documents hold: their commands parse, their code runs, their links lead somewhere."""

import ast
import json
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from documents import DOCUMENTS, ROOT, anchors, blocks, commands, links
from PIL import Image
from small_detector import small_network

from retinanet_jax import compilation
from retinanet_jax.checkpoint import Checkpoints
from retinanet_jax.cli import app
from retinanet_jax.config import default_config, to_json
from retinanet_jax.data.video import VideoWriter
from retinanet_jax.train import TrainState

OURS = ("retinanet-jax", "python")
# Programs of others that the documents name, beside ours.
OTHERS = ("python3", ".", "pip", "ruff", "sphinx-build")
SHELL = ("sh", "")
DOCSTRINGS = [
    *ROOT.glob("experiments/**/*.py"),
    *ROOT.glob("scripts/*.py"),
    *ROOT.glob("retinanet_jax/cli/*.py"),
    ROOT / "retinanet_jax/main.py",
]


def code_blocks(*languages):
    return [b for document in DOCUMENTS for b in blocks(document) if b.language in languages]


def documented_commands() -> list[tuple[str, list[str]]]:
    """(place, words) of each command of ours in the documents and docstrings."""
    found = []
    for block in code_blocks(*SHELL):
        place = f"{block.document}:{block.line}"
        if block.language == "sh" or block.text.startswith(OURS):
            # A line that begins with a flag goes on from text before it.
            found += [(place, words) for words in commands(block.text) if words[0][0] != "-"]
    for path in DOCSTRINGS:
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        whole = "\n".join(
            re.findall(r"(?m)^ {4}(?:retinanet-jax|python) .*(?:\n {8}.*)*", docstring)
        )
        found += [(path.relative_to(ROOT).as_posix(), words) for words in commands(whole)]
    return found


def complaints(given: list[tuple[str, list[str]]]) -> dict[str, str]:
    """What the parsers find wrong, by the name of the command."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests/parse_commands.py"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_every_command_is_parsed_by_its_parser():
    ours, unknown = [], []
    for place, words in documented_commands():
        if words[0] not in (*OURS, *OTHERS):
            unknown.append(f"{place}: {words[0]}")
        # With "..." or NAME it is a pattern, no command.
        elif words[0] in OURS and not {"...", "NAME", "pytest"} & set(words):
            ours.append((f"{place}: {' '.join(words)}", words))
    assert not unknown
    assert len(ours) > 40  # that they are found at all
    wrong = complaints(ours)
    assert not wrong, "\n\n".join(f"{command}\n{said}" for command, said in wrong.items())


def test_commands_that_are_wrong_would_be_found():
    wrong = {
        "retinanet-jax detect x.jpg --model=m --out=o --treshold=1": "--treshold",
        "retinanet-jax train --config=experiments/shapes.py --workdir=w --config.a.b=1": "config.a",
        "retinanet-jax inspect --config=experiments/gone.py": "no file",
        "python -m retinanet_jax.main --config=experiments/shapes.py:big --workdir=w": "'big'",
        "python scripts/scaling.py --chip=8": "--chip",
        "python scripts/analyze.py --workdr=w": "required: --workdir",
        "retinanet-jax analyze --workdir=w --config=experiments/gone.py": "no file",
        "retinanet-jax report": "required: --workdir",
        "python scripts/gone.py": "gone.py",
        "python other.py": "no command that is known",
    }
    said = complaints([(command, command.split()) for command in wrong])
    assert said.keys() == wrong.keys()
    for command, expected in wrong.items():
        assert expected in said[command]


def test_every_field_of_the_configuration_that_is_named_exists():
    fields = default_config()
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for name in re.findall(r"(?:--config\.|`config\.(?!json))([a-z_.]+[a-z])(?=[=`\s)])", text):
            value = fields
            for part in name.split("."):
                assert part in value, f"{document}: config.{name}"
                value = value[part]


def test_every_extra_that_is_named_exists():
    extras = set(re.findall(r'(?m)^        "(\w+)": \[', (ROOT / "setup.py").read_text()))
    assert "test" in extras
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        named = re.findall(r"(?:retinanet_jax|'\.|`\.)\[([\w,]+)\]", text)
        assert set(",".join(named).split(",")) - {""} <= extras, document


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_named_files_exist(document):
    folder = (ROOT / document).parent
    for link in links(document):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else ROOT / document
        assert target.exists(), f"{document}: {link}"
        assert target.is_relative_to(ROOT), f"{document}: {link}"
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), f"{document}: {link}"
    text = (ROOT / document).read_text(encoding="utf-8")
    rooms = "docs|experiments|notebooks|scripts|tests|retinanet_jax"
    for name in re.findall(rf"(?<![\w/.])(?:{rooms})/[\w/]+\.(?:py|sh|yaml|md|ipynb)\b", text):
        assert (ROOT / name).is_file(), f"{document}: {name}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the documents suppose one: a trained run, pictures, a video."""
    folder = tmp_path_factory.mktemp("documents")
    variables, config, categories = small_network()
    metadata = {"config": to_json(config), "names": categories.names, "ids": categories.ids}
    state = TrainState(jnp.int32(0), **variables, opt_state=None, average=None)
    with Checkpoints(folder / "runs/shapes/checkpoints") as checkpoints:
        checkpoints.save(0, state, metadata)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 64, 96, 3), np.uint8)
    (folder / "photos").mkdir()
    for path, frame in zip(("photo.jpg", "photos/a.jpg", "photos/b.png"), frames, strict=True):
        Image.fromarray(frame).save(folder / path)
    with VideoWriter(folder / "clip.mp4", 10.0) as video:
        for frame in frames:
            video.write(frame)
    return folder


def test_quick_commands_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(compilation, "keep_compilations", lambda _: None)
    verbosity = logging.get_verbosity()
    quick = {
        tuple(words[1:])
        for place, words in documented_commands()
        if ".md:" in place
        and words[1:2] in (["detect"], ["export"])
        and "--model=runs/shapes" in words
    }
    for arguments in sorted(quick):
        app.main(arguments)
    logging.set_verbosity(verbosity)
    assert {arguments[0] for arguments in quick} == {"detect", "export"}
    assert len(list((folder / "found/pictures").rglob("*.*"))) >= 4


# Those of CONTRIBUTING.md change tables; test_contributing.py runs them and changes them back.
PYTHON = sorted({block.document for block in code_blocks("python")} - {"CONTRIBUTING.md"})


@pytest.mark.parametrize("document", PYTHON)
def test_python_runs(document, folder, monkeypatch):
    """The blocks of a document, in order, in one namespace."""
    monkeypatch.chdir(folder)
    for name in ("stablehlo", "onnx"):
        if not (folder / f"shapes.{name}").exists():
            app.main(["export", f"--format={name}", "--model=runs/shapes", f"--out=shapes.{name}"])
    names: dict = {}
    for block in blocks(document):
        if block.language == "python" and not block.not_run:
            code = "\n" * block.line + block.text
            exec(compile(code, str(ROOT / document), "exec"), names)


def test_what_is_not_run_says_why():
    for block in code_blocks("python"):
        assert not block.not_run or len(block.not_run.split()) > 3, block


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="the site needs the extra [docs]")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "docs", tmp_path / "site"]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site/api.html").read_text(encoding="utf-8")
    assert "sigmoid_focal_loss" in api and "Focusing parameter" in api
