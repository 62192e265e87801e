"""The compilation cache: the next process compiles nothing, also after one was killed."""

import os
import subprocess
import sys

import pytest

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
    assert run(tmp_path, "so each start compiles; set config.data.cache_dir")[0] == "27.0"
