"""Workdirs in object storage, with fsspec's file system in memory in place of a bucket."""

import json
import shutil
import sys
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest
from small import small_config

from retinanet_jax import Detector
from retinanet_jax.runtime.manifest import find_damage, write_manifest
from retinanet_jax.runtime.remote_folder import STORAGES, RemoteFolder, is_remote
from retinanet_jax.runtime.remote_workdir import Mirror, working_copy
from retinanet_jax.runtime.workdir import WorkdirError
from retinanet_jax.runtime.workdir_download import (
    checkpoint_of,
    local_workdir,
    without_checkpoints,
)
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.run_log import read_metrics
from retinanet_jax.training.setup import RunCache
from retinanet_jax.training.workdir_evaluation import evaluate_workdir

BUCKET = "memory://bucket/run"


@pytest.fixture(autouse=True)
def bucket():
    yield
    if stored():
        fsspec.filesystem("memory").rm("/bucket", recursive=True)


def stored(location: str = BUCKET) -> list[str]:
    """The files in the storage, without the one that names the owner."""
    return [name for name in RemoteFolder(location).names() if name != "owner.json"]


def write_checkpoint(workdir: Path, step: int, content: str, under: str = "checkpoints") -> None:
    folder = workdir / under / str(step)
    (folder / "state/d").mkdir(parents=True)
    (folder / "metadata").mkdir()
    (folder / "state/d/array").write_text(content * 1000)
    (folder / "metadata/metadata").write_text("{}")
    write_manifest(folder)


@pytest.fixture
def run(tmp_path):
    """A run on a machine: its working copy and its mirror, which copies when the test calls it."""

    def start(machine: str) -> tuple[Path, Mirror]:
        workdir = working_copy(BUCKET, tmp_path / machine)
        workdir.mkdir(parents=True, exist_ok=True)
        return workdir, Mirror(workdir, BUCKET, seconds=3600)

    return start


def test_another_machine_resumes_from_what_was_copied(run):
    workdir, mirror = run("a")
    with mirror:
        write_checkpoint(workdir, 2, "two")
        write_checkpoint(workdir, 2, "two", "best/checkpoints")
        (workdir / "best/results.json").write_text('{"step": 2}')
        (workdir / "metrics.jsonl").write_text("1\n2\n")
        (workdir / ".lock").write_text("held")
        (workdir / "checkpoints/4.orbax-checkpoint-tmp-1").mkdir()
        (workdir / "checkpoints/4.orbax-checkpoint-tmp-1/part").write_text("half")
        (workdir / "best/checkpoints/.4").mkdir()
        (workdir / "best/checkpoints/.4/part").write_text("half")
    parts = ("manifest.json", "metadata/metadata", "state/d/array")
    expected = {f"{place}checkpoints/2/{part}" for place in ("", "best/") for part in parts}
    assert set(stored()) == expected | {"best/results.json", "metrics.jsonl"}

    other, mirror = run("b")
    with mirror:
        assert (other / "metrics.jsonl").read_text() == "1\n2\n"
        assert find_damage(other / "checkpoints/2") == ""
        assert (other / "best/checkpoints/2/state/d/array").read_text() == "two" * 1000
        # The run goes on there, and deletes its first checkpoint.
        write_checkpoint(other, 4, "four")
        shutil.rmtree(other / "checkpoints/2")
        (other / "metrics.jsonl").write_text("1\n2\n3\n4\n")
    assert not any(name.startswith("checkpoints/2/") for name in stored())
    assert RemoteFolder(BUCKET).read("checkpoints/4/state/d/array") == b"four" * 1000
    assert RemoteFolder(BUCKET).read("metrics.jsonl") == b"1\n2\n3\n4\n"

    # Back on the first machine, whose working copy is out of date.
    with run("a")[1]:
        assert (workdir / "metrics.jsonl").read_text() == "1\n2\n3\n4\n"
        assert not (workdir / "checkpoints/2").exists()


def test_the_working_copy_that_wrote_last_keeps_what_was_not_copied(run, monkeypatch):
    workdir, mirror = run("a")
    with monkeypatch.context() as patch, pytest.raises(WorkdirError, match="unplugged"), mirror:
        (workdir / "metrics.jsonl").write_text("1\n")

        def unplugged(*_):
            raise OSError("unplugged")

        patch.setattr(type(fsspec.filesystem("memory")), "pipe_file", unplugged)
    assert stored() == []
    with run("a")[1]:
        assert (workdir / "metrics.jsonl").read_text() == "1\n"
    assert stored() == ["metrics.jsonl"]


def test_only_new_and_changed_files_are_copied(run, monkeypatch):
    workdir, mirror = run("a")
    with mirror:
        write_checkpoint(workdir, 2, "two")
        (workdir / "metrics.jsonl").write_text("1\n")
        (workdir / "config.json").write_text("{}")
        mirror.copy()
        written = []
        for method in ("pipe_file", "put_file"):
            original = getattr(type(fsspec.filesystem("memory")), method)

            def record(self, *paths, original=original, **options):
                written.append(str(paths[-1] if original.__name__ == "put_file" else paths[0]))
                return original(self, *paths, **options)

            monkeypatch.setattr(type(fsspec.filesystem("memory")), method, record)
        (workdir / "metrics.jsonl").write_text("1\n2\n")
        mirror.copy()
        assert written == ["/bucket/run/metrics.jsonl"]
        # Saved again, with other settings and the same step.
        shutil.rmtree(workdir / "checkpoints/2")
        write_checkpoint(workdir, 2, "owt")
        mirror.copy()
    assert RemoteFolder(BUCKET).read("checkpoints/2/state/d/array") == b"owt" * 1000


def test_a_checkpoint_that_is_copied_in_part_is_not_read(run, monkeypatch, tmp_path):
    workdir, mirror = run("a")
    with pytest.raises(WorkdirError, match="the connection is gone"), mirror:
        write_checkpoint(workdir, 2, "two")
        mirror.copy()
        write_checkpoint(workdir, 4, "four")
        files = type(fsspec.filesystem("memory"))
        put = files.put_file

        def some(self, local, remote, **options):
            if "array" in str(remote):
                raise OSError("the connection is gone")
            return put(self, local, remote, **options)

        monkeypatch.setattr(files, "put_file", some)
    assert "checkpoints/4/metadata/metadata" in stored()
    with local_workdir(BUCKET) as folder:
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["2"]


def test_a_checkpoint_of_another_size_is_not_complete(run, monkeypatch):
    files = type(fsspec.filesystem("memory"))
    put = files.put_file

    def cut(self, local, remote, **options):
        put(self, local, remote, **options)
        if "array" in str(remote):
            self.pipe_file(remote, self.cat_file(remote)[:-1])

    monkeypatch.setattr(files, "put_file", cut)
    workdir, mirror = run("a")
    with pytest.raises(WorkdirError, match="array: 2999 of 3000 bytes were copied"), mirror:
        write_checkpoint(workdir, 2, "two")
    assert "checkpoints/2/manifest.json" not in stored()


def test_the_run_that_starts_last_owns_the_storage(run):
    first, mirror = run("a")
    with pytest.raises(WorkdirError, match=f"{BUCKET}: another run writes to it"), mirror:
        (first / "metrics.jsonl").write_text("first\n")
        mirror.copy()
        second, other = run("b")
        with other:
            (second / "metrics.jsonl").write_text("second\n")
            (first / "metrics.jsonl").write_text("first again\n")
    assert RemoteFolder(BUCKET).read("metrics.jsonl") == b"second\n"


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_storage(run, monkeypatch):
    def fail(self):
        raise WorkdirError("no connection")

    _, mirror = run("a")
    with pytest.raises(ZeroDivisionError), mirror:
        monkeypatch.setattr(Mirror, "copy", fail)
        _ = 1 / 0


def test_the_thread_copies_and_survives_an_error(run, monkeypatch, tmp_path):
    copies, done = [], threading.Event()
    copy = Mirror.copy

    def sometimes(self):
        copies.append(1)
        if len(copies) == 2:  # the first one of the thread
            raise WorkdirError("no connection")
        copy(self)
        if len(copies) > 2:
            done.set()

    monkeypatch.setattr(Mirror, "copy", sometimes)
    workdir = working_copy(BUCKET, tmp_path)
    workdir.mkdir(parents=True)
    with Mirror(workdir, BUCKET, seconds=0.01):
        (workdir / "config.json").write_text("{}")
        assert done.wait(300)
        assert stored() == ["config.json"]


def test_readers_download_what_they_need_and_copy_back_what_they_write(run):
    workdir, mirror = run("a")
    with mirror:
        write_checkpoint(workdir, 2, "two")
        write_checkpoint(workdir, 4, "four")
        write_checkpoint(workdir, 2, "two", "best/checkpoints")
        for name in ("metrics.jsonl", "results.json"):
            (workdir / name).write_text(name)

    def files(select) -> list[str]:
        with local_workdir(BUCKET, select) as folder:
            assert folder.name == "run"
            return sorted(path.name for path in folder.rglob("*") if path.is_file())

    def steps(select) -> list[str]:
        with local_workdir(BUCKET, select) as folder:
            found = (path.parent.relative_to(folder) for path in folder.rglob("manifest.json"))
            return sorted(map(str, found))

    assert steps(checkpoint_of(None)) == ["best/checkpoints/2"]
    assert steps(checkpoint_of(4)) == ["checkpoints/4"]
    assert files(without_checkpoints) == ["metrics.jsonl", "results.json"]
    with local_workdir(BUCKET) as folder:
        (folder / "results.json").write_text("another")
        (folder / "images").mkdir()
        (folder / "images/a.png").write_bytes(b"png")
        (folder / "metrics.jsonl").write_text("belongs to the run")
    assert not folder.exists()
    remote = RemoteFolder(BUCKET)
    assert remote.read("results.json") == b"another" and remote.read("images/a.png") == b"png"
    assert remote.read("metrics.jsonl") == b"metrics.jsonl"


def test_messages_of_readers_name_the_address(run):
    with pytest.raises(WorkdirError, match=f"^{BUCKET}: no files of a run; fix the address"):
        local_workdir(BUCKET).__enter__()
    workdir, mirror = run("a")
    with mirror:
        (workdir / "config.json").write_text("{}")
    with (
        pytest.raises(WorkdirError, match=f"^{BUCKET}/best: damaged"),
        local_workdir(BUCKET) as own,
    ):
        raise WorkdirError(f"{own / 'best'}: damaged")


@pytest.mark.parametrize(
    ("location", "package", "fix"),
    [
        ("gs://bucket/run", "gcsfs", "pip install gcsfs"),
        ("s3://bucket/run", "s3fs", "pip install s3fs"),
        ("az://container/run", "adlfs", "pip install adlfs"),
        ("other://bucket/run", "", "Protocol not known: other"),
    ],
)
def test_a_missing_package_is_an_error_of_one_line(location, package, fix, monkeypatch):
    if package:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WorkdirError, match=fix) as error:
        RemoteFolder(location)
    assert "\n" not in str(error.value) and location in str(error.value)


def test_missing_credentials_are_an_error_of_one_line(monkeypatch):
    def denied(*_, **__):
        raise RuntimeError("Anonymous caller\nhas no access")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "find", denied)
    monkeypatch.setitem(STORAGES, "memory", STORAGES["gs"])
    expected = r"not accessible \(Anonymous caller has no access\).*gcloud auth application-default"
    with pytest.raises(WorkdirError, match=expected):
        RemoteFolder(BUCKET).names()


def test_addresses_of_storage_are_recognized():
    assert is_remote("gs://bucket/run") and is_remote("s3://bucket/run")
    for other in ("runs/a", Path("runs/a"), "/x", "https://host/a.pth", "hf://owner/name"):
        assert not is_remote(other)
    assert working_copy("gs://b/run/", "/cache") == working_copy("gs://b/run", "/cache")
    assert working_copy("gs://b/run", "/cache") != working_copy("gs://c/run", "/cache")


@pytest.mark.extended
def test_a_run_resumes_on_another_machine_and_readers_find_its_best(tmp_path):
    cache = RunCache()

    def train(steps: int, machine: str, workdir: str | Path = BUCKET):
        fields = {"train__evaluate_every": 2, "postprocess__score_threshold": 0.0}
        folder = str(tmp_path / machine)
        config = small_config(train__steps=steps, data__cache_dir=folder, **fields)
        return train_and_evaluate(config, workdir, cache).summary

    def losses(path: Path) -> list[tuple]:
        return [(line["step"], line["kind"], line["loss"]) for line in read_metrics(path)]

    train(2, "a")
    resumed, straight = train(4, "b"), train(4, "c", tmp_path / "straight")
    assert resumed == straight
    copy = working_copy(BUCKET, tmp_path / "b") / "metrics.jsonl"
    assert losses(copy) == losses(tmp_path / "straight/metrics.jsonl")
    assert copy.read_bytes() == RemoteFolder(BUCKET).read("metrics.jsonl")
    before = json.loads(RemoteFolder(BUCKET).read("best/results.json"))
    assert evaluate_workdir(None, BUCKET).summary == before["summary"]
    assert json.loads(RemoteFolder(BUCKET).read("results.json"))["step"] == before["step"]
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    scores = [
        Detector.from_checkpoint(place)(image, threshold=0.0).scores
        for place in (BUCKET, tmp_path / "straight")
    ]
    np.testing.assert_array_equal(*scores)
    assert len(scores[0])
