"""Notebooks run from top to bottom on the CPU, with few steps, and are stored without outputs."""

import ast
import importlib
import json
import os
import subprocess
import sys

import pytest
from documents import ROOT

# What each says at its end, and would not if it had been cut short.
ENDS = {
    "coco_tpu": "'ARl':",
    "focal_loss": "</svg>",
    "quickstart": "PIL.Image.Image",
    "your_data": "- 0.00",
}
QUICK = "coco_tpu"


def cells(name: str) -> list[dict]:
    return json.loads((ROOT / f"notebooks/{name}.ipynb").read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == QUICK else pytest.mark.slow) for n in ENDS],
)
def test_a_notebook_runs(name, tmp_path):
    settings = {"STEPS": "2", "SIZE": "64", "WORKDIR": str(tmp_path / "run")}
    environment = {f"NOTEBOOK_{key}": value for key, value in settings.items()}
    done = subprocess.run(
        [sys.executable, ROOT / "tests/run_notebook.py", ROOT / f"notebooks/{name}.ipynb"],
        cwd=ROOT,
        env=os.environ | environment | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert ENDS[name] in done.stdout[-400:]


def test_all_notebooks_are_here_and_have_no_outputs():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(ENDS)
    for name in ENDS:
        for cell in cells(name):
            assert not cell.get("outputs") and not cell.get("execution_count"), name


@pytest.mark.parametrize("name", ENDS)
def test_what_a_notebook_imports_from_here_exists(name):
    """The slow ones rot without being run; this finds most of it."""
    sources = ["".join(c["source"]) for c in cells(name) if c["cell_type"] == "code"]
    imports = [n for s in sources for n in ast.walk(ast.parse(s)) if isinstance(n, ast.ImportFrom)]
    ours = [node for node in imports if node.module.startswith("retinanet_jax")]
    assert ours
    for node in ours:
        for alias in node.names:
            module = importlib.import_module(node.module)
            if not hasattr(module, alias.name):
                importlib.import_module(f"{node.module}.{alias.name}")
