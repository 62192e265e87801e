"""Compiled programs are taken up again by the next process, and a user's own folder is kept."""

import os
import subprocess
import sys

PROGRAM = """
import sys
import jax
from retinanet_jax.compilation import keep_compilations

keep_compilations(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
print(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((3, 3))))
print(events.count("/jax/compilation_cache/cache_hits"))
"""


def run(cache_dir, *, warnings: str = "error", **environment) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-W", warnings, "-c", PROGRAM, cache_dir],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


def test_the_second_process_compiles_nothing(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert first == ["27.0", "0"]
    assert second[0] == "27.0" and int(second[1]) > 0
    (folder,) = (tmp_path / "compilations").iterdir()
    assert len(folder.name) == 12 and any(folder.glob("*-cache"))


def test_a_folder_of_jax_s_own_setting_stays(tmp_path):
    run(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert any((tmp_path / "theirs").glob("*-cache"))
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_cannot_be_written_costs_the_compilation_only(tmp_path):
    (tmp_path / "compilations").write_text("a file in the way")
    assert run(tmp_path, warnings="ignore") == ["27.0", "0"]
