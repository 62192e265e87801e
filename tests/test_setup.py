"""An installed package is complete; the Dockerfile and the workflows name real files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
# In an interpreter that sees the built package instead of the clone.
PROGRAM = """
import retinanet_jax
from retinanet_jax import load_config
from retinanet_jax.config.experiment_files import experiment_paths
print(retinanet_jax.__file__)
print(*experiment_paths())
print(load_config("folder:small", data__root="x").model.backbone)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    command = [sys.executable, "setup.py", "--quiet"]
    command += ["egg_info", f"--egg-base={folder}", "build_py", f"--build-lib={folder / 'lib'}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return folder / "lib"


def test_experiments_are_found_by_name_without_a_clone(built, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(built), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    place, experiments, backbone = done.stdout.splitlines()
    assert place == str(built / "retinanet_jax/__init__.py") and backbone == "resnet18"
    files = [*ROOT.glob("experiments/*.py"), *ROOT.glob("experiments/paper/*.py")]
    names = {f.relative_to(ROOT / "experiments").with_suffix("").as_posix() for f in files}
    assert set(experiments.split()) == names


def test_every_file_of_the_package_is_installed(built):
    kept = {".py", ".css", ".js", ".html"}
    files = [p for p in (ROOT / "retinanet_jax").rglob("*") if p.suffix in kept]
    missing = [p for p in files if not (built / p.relative_to(ROOT)).is_file()]
    assert not missing


def test_workflows_and_the_image_name_files_and_extras_that_exist():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    for workflow in ROOT.glob(".github/workflows/*.yml"):
        (job,) = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
        assert all("uses" in step or "run" in step for step in job["steps"])
        for name in re.findall(r"\.ci/\w+|\w+\.txt", workflow.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), name
    for name in ("Dockerfile", "Dockerfile.cuda"):
        image = (ROOT / name).read_text(encoding="utf-8")
        (names,) = re.findall(r"EXTRAS=([\w,]+)", image)
        assert all(f'"{extra}": [' in text for extra in names.split(","))
    assert (ROOT / "constraints.txt").is_file() and "retinanet-jax=" in text
