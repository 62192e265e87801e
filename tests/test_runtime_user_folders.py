"""Paths of users without a home directory; the folder of the cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.data import folder
from retinanet_jax.runtime.remote_workdir import working_copy
from retinanet_jax.runtime.user_folders import CACHE, cache_folder, expand_user
from retinanet_jax.weights.locations import default_cache_dir

PROGRAM = """
import os
from retinanet_jax.runtime.compilation_cache import _has_account
from retinanet_jax.runtime.user_folders import expand_user
assert _has_account()
os.setuid(54321)  # without an entry in the password database
assert not _has_account()
print(expand_user("~/.cache/retinanet_jax"), expand_user("/data"), expand_user("runs"))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without an entry")
def test_without_home_and_passwd_entry_the_temporary_folder_is_used():
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | {"TMPDIR": "/tmp"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["/tmp/retinanet_jax-54321/.cache/retinanet_jax", "/data", "runs"]


def test_with_a_home_it_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~/a/b") == tmp_path / "a/b"
    assert expand_user("a/~") == Path("a/~")


def test_the_default_cache_obeys_the_environment_and_another_one_does_not(monkeypatch, tmp_path):
    for name in ("RETINANET_JAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == cache_folder(CACHE) == tmp_path / ".cache/retinanet_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache_folder() == Path("/shared/retinanet_jax")
    monkeypatch.setenv("RETINANET_JAX_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own" and cache_folder("~/x") == tmp_path / "x"


def test_indices_programs_and_weights_are_in_the_same_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RETINANET_JAX_CACHE", str(tmp_path))
    default = DataConfig.cache_dir
    assert default_cache_dir() == tmp_path
    assert working_copy("gs://a/b", default).parent == tmp_path / "workdirs"
    assert folder._cache_folder(default, tmp_path).parent == tmp_path / "folders"
