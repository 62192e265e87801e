"""Shared fixtures: run-time shape checks, the golden folder and the real photographs."""

import os
import subprocess
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("retinanet_jax", "beartype.beartype")

import pytest  # noqa: E402  (the hook must be there before the package is imported)

ROOT = Path(__file__).resolve().parent.parent


def _existing(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable, default)).resolve()
    if not path.is_dir():
        pytest.skip(f"{path} is not there; set {variable} to run this test")
    return path


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder of real photographs and partial weights (RETINANET_SHARED, default ../shared)."""
    return _existing("RETINANET_SHARED", ROOT.parent / "shared")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of torchvision's outputs (RETINANET_GOLDEN, default ../shared/golden)."""
    return _existing("RETINANET_GOLDEN", ROOT.parent / "shared" / "golden")


@pytest.fixture(scope="session")
def compilations(tmp_path_factory) -> dict[str, str]:
    """Environment of other processes, in which they compile quickly, and what is alike once."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compilations")),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }


@pytest.fixture
def read(tmp_path):
    """Reads bytes as a checkpoint's file, weights.bin."""
    from retinanet_jax.weights.readers import read_state_dict

    def read_bytes(content):
        path = tmp_path / "weights.bin"
        path.write_bytes(content)
        return read_state_dict(path)

    return read_bytes


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB of its own, for tests of a full disk; only root may make one."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip(f"no file system can be made here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)
