"""Commands, code, links, names and addresses in the documents."""

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
import yaml
from documents import DOCUMENTS, ROOT, anchors, blocks, commands, links
from PIL import Image

from retinanet_jax.config.settings import default_config
from retinanet_jax.data.video import VideoWriter

OURS = ("retinanet-jax", "python")
# Other programs that the documents name.
OTHERS = ("python3", ".", "pip", "ruff", "sphinx-build", "jupyter")
SHELL = ("sh", "bash", "")
DOCSTRINGS = [
    *ROOT.glob("experiments/**/*.py"),
    *ROOT.glob("scripts/*.py"),
    *ROOT.glob("retinanet_jax/cli/*.py"),
    ROOT / "retinanet_jax/main.py",
]


def code_blocks(*languages):
    return [b for document in DOCUMENTS for b in blocks(document) if b.language in languages]


def documented_commands() -> list[tuple[str, list[str]]]:
    """(place, words) of each of our commands in the documents and docstrings."""
    found = []
    for block in code_blocks(*SHELL):
        place = f"{block.document}:{block.line}"
        if block.language in ("sh", "bash") or block.text.startswith(OURS):
            # A line that begins with a flag is a part of a command.
            found += [(place, words) for words in commands(block.text) if words[0][0] != "-"]
    for path in DOCSTRINGS:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        whole = "\n".join(
            re.findall(r"(?m)^ {4}(?:retinanet-jax|python) .*(?:\n {8}.*)*", docstring)
        )
        found += [(path.relative_to(ROOT).as_posix(), words) for words in commands(whole)]
    return found


def errors_of(
    given: list[tuple[str, list[str]]], script: str = "parse_commands.py", **options
) -> dict[str, str]:
    """The errors of commands that are parsed or run, by the name of the command."""
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


@pytest.mark.extended
def test_every_command_is_parsed_by_its_parser():
    ours, unknown = [], []
    for place, words in documented_commands():
        if words[0] not in (*OURS, *OTHERS):
            unknown.append(f"{place}: {words[0]}")
        # "..." and NAME mark a pattern.
        elif words[0] in OURS and not {"...", "NAME", "pytest"} & set(words):
            ours.append((f"{place}: {' '.join(words)}", words))
    assert not unknown
    assert len(ours) > 40
    wrong = errors_of(ours)
    assert not wrong, "\n\n".join(f"{command}\n{error}" for command, error in wrong.items())


def test_invalid_commands_are_found():
    wrong = {
        "retinanet-jax detect x.jpg --model=m --out=o --treshold=1": "--treshold",
        "retinanet-jax train --config=experiments/shapes.py --workdir=w --config.a.b=1": "config.a",
        "retinanet-jax inspect --config=experiments/gone.py": "no such file",
        "python -m retinanet_jax.main --config=experiments/shapes.py:big --workdir=w": "'big'",
        "python scripts/scaling.py --chip=8": "--chip",
        "python scripts/benchmark.py nms --boxs=1": "--boxs",
        "retinanet-jax analyze --workdr=w": "required: --model/--workdir",
        "retinanet-jax analyze --workdir=w --config=experiments/gone.py": "no such file",
        "retinanet-jax report": "--workdir",
        "retinanet-jax evaluate": "required: --model/--workdir",
        "python scripts/gone.py": "gone.py",
        "python other.py": "unknown command",
    }
    errors = errors_of([(command, command.split()) for command in wrong])
    assert errors.keys() == wrong.keys()
    for command, expected in wrong.items():
        assert expected in errors[command]


def test_every_named_config_field_exists():
    fields = default_config()
    for document in set(DOCUMENTS) - {"CHANGELOG.md"}:  # it also names former fields and modules
        text = (ROOT / document).read_text(encoding="utf-8")
        for name in re.findall(r"(?:--config\.|`config\.(?!json))([a-z_.]+[a-z])(?=[=`\s)])", text):
            value = fields
            for part in name.split("."):
                assert part in value, f"{document}: config.{name}"
                value = value[part]


def test_every_named_extra_exists():
    extras = set(
        re.findall(r'(?m)^        "(\w+)": \[', (ROOT / "setup.py").read_text(encoding="utf-8"))
    )
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
    folders = "docs|experiments|notebooks|scripts|tests|retinanet_jax"
    for name in re.findall(rf"(?<![\w/.])(?:{folders})/[\w/]+\.(?:py|sh|yaml|md|ipynb)\b", text):
        assert (ROOT / name).is_file(), f"{document}: {name}"


# Shortens a run of minutes to seconds.
SHORT = (
    *("--config.train.steps=2", "--config.train.batch_size=1", "--config.optimizer.warmup_steps=1"),
    *("--config.pipeline.min_side=64", "--config.pipeline.max_side=64"),
    *("--config.model.backbone_levels=(3,)", "--config.model.max_level=4"),
    *("--config.model.fpn_channels=16", "--config.model.head_channels=32"),
    *("--config.model.head_depth=1", "--config.evaluation.batch_size=1"),
    *("--config.data.shapes.image_size=(64, 64)", "--config.data.shapes.num_eval=4"),
    "--config.data.cache_dir=cache",
)
NO_WEIGHTS = "--weights=none"  # the tests have no connection
# The commands that are run, in this order: document, first words, further arguments.
RUN = [
    ("README.md", "retinanet-jax train --config=shapes", SHORT),
    ("docs/running.md", "retinanet-jax evaluate", ()),
    ("docs/get_started.md", "retinanet-jax detect", ()),
    ("README.md", "retinanet-jax detect photos/ clip.mp4", ()),
    ("docs/export.md", "retinanet-jax export --format=stablehlo", ()),
    ("docs/export.md", "retinanet-jax export --format=onnx", ()),
    ("docs/your_data.md", "retinanet-jax inspect", ("--config.data.cache_dir=cache",)),
    (
        "docs/your_data.md",
        "retinanet-jax train --data=FOLDER --name=mine",
        (*SHORT, NO_WEIGHTS),
    ),
    ("docs/sweeps.md", "retinanet-jax sweep", ("--print_commands",)),
    ("docs/sweeps.md", "retinanet-jax report", ()),
]


@pytest.fixture(scope="module", params=[pytest.param("commands", marks=pytest.mark.extended)])
def folder(tmp_path_factory, compilations):
    """A folder like a clone with images and a video, after all commands of RUN ran in it.

    FOLDER is that of docs/your_data.md, with its JSON.
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
        # Weights are optional in these commands; the tests have none.
        words = [word for word in found[0] if "=WEIGHTS" not in word]
        given.append((" ".join(words), [*words, *more]))
    environment = os.environ | {"PYTHONPATH": str(ROOT), **compilations}
    wrong = errors_of(given, "run_commands.py", cwd=folder, env=environment)
    assert not wrong, "\n\n".join(f"{command}\n{error}" for command, error in wrong.items())
    return folder


def test_commands_write_the_documented_files(folder):
    for written in (
        *("runs/shapes/results.json", "runs/shapes/best/results.json", "runs/mine/config.json"),
        *("found/detections.coco.json", "found/detections.csv", "found/images/clip.mp4"),
        *("shapes.onnx", "shapes.stablehlo", "look.html", "runs/focal/report.md"),
    ):
        assert (folder / written).stat().st_size > 0, written
    assert len(list((folder / "runs/shapes/images").iterdir())) == 1
    assert len(list((folder / "found/images").rglob("*.*"))) >= 4
    results = json.loads((folder / "runs/mine/results.json").read_text())
    assert results["per_class"].keys() == {"red cell", "white cell"}


# test_contributing.py runs the blocks of CONTRIBUTING.md and restores the tables that they change.
PYTHON = sorted({block.document for block in code_blocks("python")} - {"CONTRIBUTING.md"})


@pytest.mark.parametrize("document", PYTHON)
def test_python_runs(document, folder, monkeypatch):
    """The blocks of a document run in order, in one namespace."""
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in blocks(document):
        if block.language == "python" and not block.not_run:
            code = "\n" * block.line + block.text
            exec(compile(code, str(ROOT / document), "exec"), names)


def test_blocks_that_are_not_run_have_a_reason():
    for block in code_blocks("python"):
        assert not block.not_run or len(block.not_run.split()) > 3, block


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built by the README's command, with warnings as errors."""
    pytest.importorskip("sphinx", reason="the site needs the extra [test] or [docs]")
    site = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "docs", site]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return site


@pytest.mark.extended
def test_the_site_has_a_page_for_each_document_and_the_api(site):
    names = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert names <= {path.stem for path in site.glob("*.html")}
    api = (site / "api.html").read_text(encoding="utf-8")
    assert "focal_loss" in api and "Focusing parameter" in api


@pytest.mark.extended
def test_links_and_images_of_the_site_exist(site):
    pages = {path: path.read_text(encoding="utf-8") for path in site.glob("*.html")}
    names = {path: set(re.findall(r' id="([^"]+)"', text)) for path, text in pages.items()}
    checked = 0
    for page, text in pages.items():
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            path, _, anchor = html.unescape(link).partition("#")
            if re.match(r"[a-z]+:", path) or path.startswith("//"):
                continue  # other sites: see test_addresses_are_well_formed
            target = (page.parent / urllib.parse.unquote(path.partition("?")[0])).resolve()
            target = target if path else page
            assert target.is_file(), f"{page.name}: {link}"
            if anchor and target in names:
                assert urllib.parse.unquote(anchor) in names[target] | {""}, f"{page.name}: {link}"
            checked += 1
    assert checked > 1000


def test_colab_links_and_installations_use_the_address_of_the_project():
    """docs/conf.py has the address; each notebook has a Colab link and installs the package."""
    conf = (ROOT / "docs/conf.py").read_text(encoding="utf-8")
    repository = re.search(r'(?m)^REPOSITORY = "([\w.-]+/[\w.-]+)"$', conf)[1]
    colab = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks"
    notebooks = list((ROOT / "notebooks").glob("*.ipynb"))
    found = links("notebooks/README.md")
    assert {link for link in found if "colab" in link} == {f"{colab}/{n.name}" for n in notebooks}
    for notebook in notebooks:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells)
        addresses = re.findall(r"github\.com/([\w.-]+/[\w.-]+)", source)
        assert addresses == [repository], notebook.name


def test_the_citation_names_the_package_and_the_paper():
    """CITATION.cff is YAML of the Citation File Format 1.2 with its required fields."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'version="{citation["version"]}"' in setup
    assert citation["license"] == "Apache-2.0" and 'license="Apache-2.0"' in setup
    assert citation["references"][0]["title"] == "Focal Loss for Dense Object Detection"


def test_the_modules_that_the_changelog_names_exist():
    """The right column of the table of moved modules; `.x` is in the folder of the name before."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^  \| `.*` \| (`.*`) \|$", text)
    assert len(rows) > 8
    for row in rows:
        folder = ""
        for name in re.findall(r"`([\w.]+)`", row):
            folder = folder if name.startswith(".") else name.rpartition(".")[0]
            module = folder + name if name.startswith(".") else name
            path = ROOT / "retinanet_jax" / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), module


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("document", DOCUMENTS)
def test_addresses_are_well_formed(document):
    """Checks the form only: tests need no network."""
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            parts = urllib.parse.urlsplit(link)
            assert parts.scheme == "https" and "." in parts.netloc, link
            assert not re.search(r"[\s<>\"]", link), link
