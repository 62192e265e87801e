"""The folder of a run: its lock, whole files, and disks that are not writable."""

import errno
import fcntl
import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest

from retinanet_jax.runtime.workdir import WorkdirError, disk_errors, locked, write_whole


def hold(workdir: Path, ready, end) -> None:
    with locked(workdir):
        ready.set()
        end.wait()


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    spawn = multiprocessing.get_context("spawn")
    ready, end = spawn.Event(), spawn.Event()
    process = spawn.Process(target=hold, args=(tmp_path, ready, end))
    process.start()
    assert ready.wait(120)
    yield process
    process.kill()
    process.join()


def test_a_second_run_is_an_error_and_the_lock_ends_with_its_process(tmp_path, holder):
    with (
        pytest.raises(WorkdirError, match=f"in use by another run .process {holder.pid} on"),
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


def test_a_process_id_of_another_container_does_not_matter(tmp_path, holder):
    """The file may name any process: one that does not exist here, or one that is not the run."""
    for pid in (2**22 - 1, os.getpid()):
        (tmp_path / ".lock").write_text(f"process {pid} on localhost since 2026-01-01 00:00:00\n")
        with pytest.raises(WorkdirError, match=f"in use by another run .process {pid} on"):
            locked(tmp_path).__enter__()
    free = tmp_path / "free"
    free.mkdir()
    (free / ".lock").write_text(f"process {os.getppid()} on localhost\n")
    with locked(free):
        pass


def test_patience_waits_for_a_run_that_is_ending(tmp_path, holder):
    spawn = multiprocessing.get_context("spawn")
    waiter = spawn.Process(target=wait_for_lock, args=(tmp_path,))
    waiter.start()
    holder.kill()
    waiter.join(120)
    assert waiter.exitcode == 0


def wait_for_lock(workdir: Path) -> None:
    with locked(workdir, patience=120.0):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    assert f"{tmp_path}: the file system has no locks" in caplog.text
    with locked(tmp_path):  # what is left behind does not block
        pass


def test_a_file_in_place_of_the_workdir(tmp_path):
    (tmp_path / "w").write_text("")
    with (
        pytest.raises(WorkdirError, match="use a --workdir that is a folder"),
        locked(tmp_path / "w"),
    ):
        pass


def test_a_read_only_disk(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with (
        pytest.raises(WorkdirError, match=f"{small_disk}/run: not writable: Read-only"),
        locked(small_disk / "run"),
    ):
        pass


def test_only_errors_of_the_workdir_s_disk_are_converted(tmp_path):
    with (
        pytest.raises(WorkdirError, match=r"No space left on device .* MB free.; free some space"),
        disk_errors(tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "metrics.jsonl"))
    with (
        pytest.raises(WorkdirError, match="use a --workdir that can be created"),
        disk_errors(tmp_path / "w"),
    ):
        (tmp_path / "w/deleted/results.json").write_text("")
    for error in (PermissionError(errno.EACCES, "no", "/elsewhere/a.jpg"), OSError("odd")):
        with pytest.raises(type(error)) as raised, disk_errors(tmp_path):
            raise error
        assert raised.value is error


def test_a_file_is_written_whole_or_not_at_all(small_disk):
    path = small_disk / "results.json"
    write_whole(path, "old")
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "x" * 10**7)
    assert path.read_text() == "old" and os.listdir(small_disk) == ["results.json"]
