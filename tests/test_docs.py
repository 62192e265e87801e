"""The documents hold: their commands parse, their code runs, their links lead somewhere."""

import ast
import html
import json
import os
import re
import subprocess
import sys
import urllib.parse

import numpy as np
import pytest
from documents import DOCUMENTS, ROOT, anchors, blocks, commands, links
from PIL import Image

from retinanet_jax.config.settings import default_config
from retinanet_jax.data.video import VideoWriter

OURS = ("retinanet-jax", "python")
# Programs of others that the documents name, beside ours.
OTHERS = ("python3", ".", "pip", "ruff", "sphinx-build", "jupyter")
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


def complaints(
    given: list[tuple[str, list[str]]], script: str = "parse_commands.py", **options
) -> dict[str, str]:
    """What is found wrong when commands are parsed, or run, by the name of the command."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=900,
        **{"cwd": ROOT} | options,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


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
        "retinanet-jax report": "--workdir",
        "retinanet-jax evaluate": "--workdir is missing",
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


# Makes a run of seconds of those of minutes.
SHORT = (
    *("--config.train.steps=2", "--config.train.batch_size=1", "--config.optimizer.warmup_steps=1"),
    *("--config.pipeline.min_side=64", "--config.pipeline.max_side=64"),
    *("--config.model.backbone_levels=(3,)", "--config.model.max_level=4"),
    *("--config.model.fpn_channels=16", "--config.model.head_channels=32"),
    *("--config.model.head_depth=1", "--config.evaluation.batch_size=1"),
    *("--config.data.shapes.image_size=(64, 64)", "--config.data.shapes.num_eval=4"),
    "--config.data.cache_dir=cache",
)
# What is run of the documents, in turns: where it stands, how it begins, and what is added to it.
RUN = [
    ("README.md", "python -m retinanet_jax.main --config=experiments/shapes.py", SHORT),
    ("docs/running.md", "retinanet-jax evaluate", ()),
    ("docs/get_started.md", "retinanet-jax detect", ()),
    ("README.md", "retinanet-jax detect", ()),
    ("docs/export.md", "retinanet-jax export --format=stablehlo", ()),
    ("docs/export.md", "retinanet-jax export --format=onnx", ()),
    ("docs/your_data.md", "retinanet-jax inspect", ("--config.data.cache_dir=cache",)),
    ("docs/your_data.md", "retinanet-jax train --config=experiments/folder.py:small", SHORT),
    ("docs/sweeps.md", "retinanet-jax sweep", ("--print_commands",)),
    ("docs/sweeps.md", "retinanet-jax report", ()),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, compilations):
    """A folder as the documents suppose one: the clone's, images, a video, and what RUN leaves.

    FOLDER is that of docs/your_data.md, with the JSON that stands there.
    """
    folder = tmp_path_factory.mktemp("documents")
    for name in ("docs", "experiments", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)
    images = ("photo.jpg", "photos/a.jpg", "photos/b.png")
    for path, frame in zip(images, frames, strict=True):
        (folder / path).parent.mkdir(exist_ok=True)
        Image.fromarray(frame).save(folder / path)
    with VideoWriter(folder / "clip.mp4", 10.0) as video:
        for frame in frames:
            video.write(frame)
    for name in ("images", "annotations"):
        (folder / "FOLDER" / name).mkdir(parents=True)
    (annotations,) = (b for b in blocks("docs/your_data.md") if b.language == "json")
    for split in ("train", "val"):
        (folder / f"FOLDER/annotations/instances_{split}.json").write_text(annotations.text)
    Image.new("RGB", (320, 240), "pink").save(folder / "FOLDER/images/cells.jpg")

    documented, given = documented_commands(), []
    for document, beginning, more in RUN:
        found = [
            words
            for place, words in documented
            if place.startswith(document) and " ".join(words).startswith(beginning)
        ]
        assert found, (document, beginning)
        # Weights are optional there, and none can be had here.
        words = [word for word in found[0] if "=WEIGHTS" not in word]
        given.append((" ".join(words), [*words, *more]))
    environment = os.environ | {"PYTHONPATH": str(ROOT), **compilations}
    wrong = complaints(given, "run_commands.py", cwd=folder, env=environment)
    assert not wrong, "\n\n".join(f"{command}\n{said}" for command, said in wrong.items())
    return folder


def test_commands_leave_what_the_documents_say(folder):
    for left in (
        *("runs/shapes/results.json", "runs/shapes/best/results.json", "runs/mine/config.json"),
        *("found/detections.coco.json", "found/detections.csv", "found/images/clip.mp4"),
        *("shapes.onnx", "shapes.stablehlo", "look.html", "runs/focal/report.md"),
    ):
        assert (folder / left).stat().st_size > 0, left
    assert len(list((folder / "runs/shapes/images").iterdir())) == 1
    assert len(list((folder / "found/images").rglob("*.*"))) >= 4
    results = json.loads((folder / "runs/mine/results.json").read_text())
    assert results["per_class"].keys() == {"red cell", "white cell"}


# Those of CONTRIBUTING.md change tables; test_contributing.py runs them and changes them back.
PYTHON = sorted({block.document for block in code_blocks("python")} - {"CONTRIBUTING.md"})


@pytest.mark.parametrize("document", PYTHON)
def test_python_runs(document, folder, monkeypatch):
    """The blocks of a document, in order, in one namespace."""
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in blocks(document):
        if block.language == "python" and not block.not_run:
            code = "\n" * block.line + block.text
            exec(compile(code, str(ROOT / document), "exec"), names)


def test_what_is_not_run_says_why():
    for block in code_blocks("python"):
        assert not block.not_run or len(block.not_run.split()) > 3, block


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as the README says, with warnings as errors."""
    pytest.importorskip("sphinx", reason="the site needs the extra [test] or [docs]")
    site = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "docs", site]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return site


def test_the_site_has_a_page_for_each_document_and_the_api(site):
    names = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert names <= {path.stem for path in site.glob("*.html")}
    api = (site / "api.html").read_text(encoding="utf-8")
    assert "focal_loss" in api and "Focusing parameter" in api


def test_links_and_images_of_the_site_lead_somewhere(site):
    pages = {path: path.read_text(encoding="utf-8") for path in site.glob("*.html")}
    names = {path: set(re.findall(r' id="([^"]+)"', text)) for path, text in pages.items()}
    checked = 0
    for page, text in pages.items():
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            path, _, anchor = html.unescape(link).partition("#")
            if re.match(r"[a-z]+:", path) or path.startswith("//"):
                continue  # of other sites; test_addresses_are_well_formed looks at their form
            target = (page.parent / urllib.parse.unquote(path.partition("?")[0])).resolve()
            target = target if path else page
            assert target.is_file(), f"{page.name}: {link}"
            if anchor and target in names:
                assert urllib.parse.unquote(anchor) in names[target] | {""}, f"{page.name}: {link}"
            checked += 1
    assert checked > 1000


@pytest.mark.parametrize("document", DOCUMENTS)
def test_addresses_are_well_formed(document):
    """Whether somebody answers there is not asked: tests need no network."""
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            parts = urllib.parse.urlsplit(link)
            assert parts.scheme == "https" and "." in parts.netloc, link
            assert not re.search(r"[\s<>\"]", link), link
