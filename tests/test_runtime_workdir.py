"""The folder of a run: its lock, whole files, and disks that cannot be written."""

import errno
import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest

from retinanet_jax.runtime.workdir import WorkdirError, locked, telling_of_disk, write_whole


def hold(workdir: Path, ready, end) -> None:
    with locked(workdir):
        ready.set()
        end.wait()


def test_the_second_is_refused_by_name_and_a_dead_holder_is_none(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready, end = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=hold, args=(tmp_path, ready, end))
    holder.start()
    assert ready.wait(120)
    with (
        pytest.raises(WorkdirError, match=f"another run trains in it .process {holder.pid} on"),
        locked(tmp_path),
    ):
        pass
    holder.kill()
    holder.join()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    with locked(tmp_path):
        pass


def test_a_file_in_the_place_of_the_workdir(tmp_path):
    (tmp_path / "w").write_text("")
    with (
        pytest.raises(WorkdirError, match="use a --workdir that is a folder"),
        locked(tmp_path / "w"),
    ):
        pass


def test_a_read_only_disk(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with (
        pytest.raises(WorkdirError, match=f"{small_disk}/run: cannot be written: Read-only"),
        locked(small_disk / "run"),
    ):
        pass


def test_only_the_disk_of_the_workdir_is_spoken_of(tmp_path):
    with (
        pytest.raises(WorkdirError, match=r"No space left on device .* MB are free.; make room"),
        telling_of_disk(tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "metrics.jsonl"))
    for error in (PermissionError(errno.EACCES, "no", "/elsewhere/a.jpg"), OSError("odd")):
        with pytest.raises(type(error)) as raised, telling_of_disk(tmp_path):
            raise error
        assert raised.value is error


def test_a_file_is_whole_or_as_it_was(small_disk):
    path = small_disk / "results.json"
    write_whole(path, "old")
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "x" * 10**7)
    assert path.read_text() == "old" and os.listdir(small_disk) == ["results.json"]
