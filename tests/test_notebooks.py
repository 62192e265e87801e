"""Notebooks run from top to bottom on the CPU with few steps, and are stored without outputs."""

import json
import os
import subprocess
import sys

import pytest
from documents import ROOT

# The end of the output of each notebook.
ENDS = {
    "coco_tpu": "'ARl':",
    "curvature": "figure with 2 lines, step, largest eigenvalue",
    "focal_loss": "<Figure size",
    "quickstart": "figure with 2 lines, step, loss",
    "your_data": "- 0.00",
}


def cells(name: str) -> list[dict]:
    return json.loads((ROOT / f"notebooks/{name}.ipynb").read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "coco_tpu" else pytest.mark.extended)
        for name in ENDS
    ],
)
def test_a_notebook_runs(name, tmp_path, compilations):
    settings = {"STEPS": "2", "SIZE": "64", "WORKDIR": str(tmp_path / "run")}
    environment = {f"NOTEBOOK_{key}": value for key, value in settings.items()}
    environment |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, ROOT / "tests/run_notebook.py", ROOT / f"notebooks/{name}.ipynb"],
        cwd=ROOT,
        env=os.environ | environment | compilations,
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
