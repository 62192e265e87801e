"""The compilation cache: the next process compiles nothing, also after one was killed."""

import os
import subprocess
import sys

import jax
import pytest
from launched import free_port

PROGRAM = """
import sys
import jax
from retinanet_jax.runtime.compilation_cache import keep_compilations

keep_compilations(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
print(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((3, 3))))
print(events.count("/jax/compilation_cache/cache_hits"))
print(events.count("/jax/compilation_cache/cache_misses"))
"""


# A program over the devices of two processes, after a first one as `processes.joined` runs it.
TOGETHER = """
import sys
from pathlib import Path
import jax
import numpy as np
from jax._src import cache_key
from jax.sharding import NamedSharding, PartitionSpec
from retinanet_jax.runtime.compilation_cache import keep_compilations

# On the CPU alone, JAX's key has a fingerprint that differs by process.
cache_key._hash_accelerator_config = cache_key._hash_devices
address, number, shared = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
jax.distributed.initialize(address, 2, number)
jax.jit(lambda x: x + 1)(1)
keep_compilations(shared / f"host{number}", shared)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
rows = NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec("data"))
x = jax.make_array_from_process_local_data(rows, np.ones((1, 3), np.float32))
jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(rows.mesh, PartitionSpec()))(x)
print(events.count("/jax/compilation_cache/cache_hits"))
print(events.count("/jax/compilation_cache/cache_misses"))
jax.distributed.shutdown()
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)


def run(cache_dir, says: str = "", **environment) -> tuple[str, int, int]:
    """The result, cache hits and cache misses; warnings of Python are errors."""
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, cache_dir],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert says in answer.stderr
    result, hits, misses = answer.stdout.split()
    return result, int(hits), int(misses)


def test_the_second_process_compiles_nothing(tmp_path):
    result, hits, misses = run(tmp_path)
    assert result == "27.0" and hits == 0 and misses > 0
    assert run(tmp_path) == ("27.0", misses, 0)
    (folder,) = (tmp_path / "compilations").iterdir()
    assert len(folder.name) == 12 and any(folder.glob("*-cache"))


def test_what_a_killed_process_left_does_not_stop_the_cache(tmp_path):
    """JAX writes KEY-cache, then KEY-atime; without the second it would store nothing any more."""
    _, _, misses = run(tmp_path)
    (folder,) = (tmp_path / "compilations").iterdir()
    for path in folder.glob("*-atime"):
        path.unlink()
    for path in folder.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:10])
    (folder / "orphan-cache").write_bytes(b"x")
    (folder / ".lockfile").write_text("process 1 on localhost")
    assert run(tmp_path) == ("27.0", 0, misses)
    assert run(tmp_path) == ("27.0", misses, 0)
    assert not (folder / "orphan-cache").exists()


def test_a_folder_chosen_by_jax_s_own_setting_is_used(tmp_path):
    run(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert any((tmp_path / "theirs").glob("*-cache"))
    assert not (tmp_path / "ours").exists()


def test_in_a_folder_that_is_not_writable_programs_are_compiled(tmp_path):
    (tmp_path / "compilations").write_text("a file in the way")
    assert run(tmp_path, "so every start compiles again; set config.data.cache_dir")[0] == "27.0"


@pytest.mark.extended
def test_every_process_of_a_run_finds_what_the_first_one_compiled(tmp_path):
    def hits_and_misses() -> list[list[int]]:
        command = [sys.executable, "-c", TOGETHER, f"127.0.0.1:{free_port()}"]
        started = [
            subprocess.Popen([*command, str(number), tmp_path], stdout=subprocess.PIPE, text=True)
            for number in (0, 1)
        ]
        outputs = [run.communicate(timeout=300)[0].splitlines() for run in started]
        return [[int(line) for line in lines[-2:]] for lines in outputs]  # after lines of Gloo

    first, _ = hits_and_misses()
    assert first[0] == 0 and first[1] > 0
    assert all(hits > 0 and misses == 0 for hits, misses in hits_and_misses())
    assert not list(tmp_path.glob("host*"))


def test_jax_keeps_the_algorithms_that_xla_measures_on_a_gpu():
    """In the same folder, by its own default."""
    kept = jax.config.jax_persistent_cache_enable_xla_caches
    assert "xla_gpu_per_fusion_autotune_cache_dir" in kept
