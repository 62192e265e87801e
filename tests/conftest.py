"""Shared fixtures: run-time shape checks, the golden folder and the real photographs."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from quick import FLAGS

# Before JAX is imported; processes that tests start inherit it. The flags of the environment come
# last and win: with --xla_backend_optimization_level=3 the tests run the code that users run.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"
# Programs that several tests compile are compiled once, by all processes of the session together.
OWN_CACHE = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    OWN_CACHE = tempfile.mkdtemp(prefix="retinanet_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = OWN_CACHE
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

from jaxtyping import install_import_hook  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
# Only where shapes are annotated: checking each argument of the whole package costs 20 s a process.
install_import_hook(
    [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "retinanet_jax").rglob("*.py")
        if "jaxtyping" in path.read_text(encoding="utf-8")
    ],
    "beartype.beartype",
)

import process_memory  # noqa: E402  (the hook must be there before the package is imported)
import pytest  # noqa: E402
from absl import logging  # noqa: E402

VERBOSITY = logging.get_verbosity()


def pytest_unconfigure():
    """Removes the session's cache, at the end of the process that made it."""
    if OWN_CACHE:
        shutil.rmtree(OWN_CACHE, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def no_memory_of_other_files():
    """No two files use the same compiled programs, which take gigabytes in total."""
    yield
    process_memory.release()


@pytest.fixture(autouse=True)
def verbosity_of_a_new_process():
    """Commands that tests and fixtures of any scope call in this process choose what absl logs."""
    logging.set_verbosity(VERBOSITY)


@pytest.fixture(autouse=True)
def bounded_memory():
    """Keeps a process small within a file as well; programs come back from the session's cache."""
    yield
    if process_memory.resident_bytes() > 1.2e9:
        process_memory.release()


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
def compilations() -> dict[str, str]:
    """Environment of other processes, in which they compile quickly and share what they compile."""
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS", "XLA_FLAGS")
    return {name: os.environ[name] for name in names}


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
