"""Paths of users without a home directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retinanet_jax.runtime.user_folders import expand_user

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
