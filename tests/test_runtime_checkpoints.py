"""Checkpoints: exact round trips, damage that is detected, errors that say why."""

import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

from retinanet_jax.runtime.checkpoints import CheckpointError, Checkpoints


def state_of(value: float) -> dict:
    return {"params": {"w": jnp.full((3, 2), value)}, "step": jnp.int32(value), "average": None}


def saved(directory: Path, *steps: int) -> None:
    with Checkpoints(directory) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_of(step + 0.5), {"names": [], "ids": []})


def data_file(directory: Path, step: int) -> Path:
    """The largest file of a checkpoint, which has the arrays."""
    files = [path for path in (directory / str(step) / "state").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("shared", [True, False])
def test_round_trip_of_the_latest(tmp_path, shared):
    with Checkpoints(tmp_path / "c", keep=2, shared=shared) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state_of(step + 0.1), {"names": ["é"], "ids": [7]})
    assert checkpoints.latest_step() == 3
    restored = checkpoints.restore(state_of(0.0))
    jax.tree.map(np.testing.assert_array_equal, restored, state_of(3.1))
    assert checkpoints.read_metadata() == {"format": 1, "step": 3, "names": ["é"], "ids": [7]}
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == ["2", "3"]


@pytest.mark.parametrize("shared", [True, False])
def test_a_part_is_read_without_knowing_the_rest(tmp_path, shared):
    with Checkpoints(tmp_path, shared=shared) as checkpoints:
        checkpoints.save(5, state_of(5.0), {})
    part = checkpoints.read_part(("params", "average"))
    assert part["average"] is None and set(part) == {"params", "average"}
    np.testing.assert_array_equal(part["params"]["w"], state_of(5.0)["params"]["w"])


def test_a_part_equals_what_orbax_reads(tmp_path):
    folder = tmp_path / "50% of #1 é"
    tree = {"count": jnp.int32(3), "moments": (jnp.arange(6.0).reshape(2, 3), None, {})}
    tree["half"] = jnp.asarray([1.5, -2], jnp.bfloat16)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, tree, {})
    part = checkpoints.read_part(("half", "count", "moments"))
    whole = orbax.checkpoint.StandardCheckpointer().restore(folder / "1" / "state", tree)
    for ours, theirs in zip(jax.tree.leaves(part), jax.tree.leaves(whole), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        np.testing.assert_array_equal(ours, theirs)


def test_saving_an_earlier_step_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state_of(5.0), {})
    checkpoints.wait()
    with pytest.raises(CheckpointError, match="step 4 was not saved because step 5 already exists"):
        checkpoints.save(4, state_of(4.0), {})


def test_an_empty_folder_named_by_a_number_is_not_a_checkpoint(tmp_path):
    (tmp_path / "9000").mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() is None
    with pytest.raises(CheckpointError, match="no checkpoint; train first"):
        checkpoints.restore(state_of(0.0))
    # Orbax alone would take 9000 for the latest step, and save no step below it.
    saved(tmp_path, 3)
    assert Checkpoints(tmp_path).latest_step() == 3
    assert not (tmp_path / "9000").exists()


def test_another_shape_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1.0), {})
    checkpoints.wait()
    with pytest.raises(CheckpointError, match="does not fit this model"):
        checkpoints.restore({**state_of(0.0), "params": {"w": jnp.zeros((5, 5))}})


def test_a_state_of_another_version_says_what_is_missing(tmp_path):
    earlier = state_of(1.0)
    del earlier["average"]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, earlier, {})
        checkpoints.wait()
        with pytest.raises(
            CheckpointError, match=r"1: does not fit this model: .*average.*new workdir"
        ):
            checkpoints.restore({**state_of(0.0), "average": jnp.zeros(3)})
        with pytest.raises(
            CheckpointError,
            match="has params, step and no average; it was written by another version",
        ):
            checkpoints.read_part(("params", "average"))


def test_the_newest_before_a_step(tmp_path):
    saved(tmp_path, 2, 4)
    checkpoints = Checkpoints(tmp_path)
    assert [checkpoints.latest_step(before=step) for step in (2, 3, 4, 5)] == [None, 2, 2, 4]
    cut(data_file(tmp_path, 2))
    with pytest.raises(CheckpointError, match="all checkpoints are damaged"):
        Checkpoints(tmp_path).latest_step(before=4)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [(cut, "bytes, expected"), (flip, "wrong SHA-256"), (Path.unlink, "No such file")],
)
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, caplog, damage, expected):
    directory = tmp_path / "c"
    saved(directory, 1, 2)
    damage(data_file(directory, 2))
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.latest_step() == 1
        assert f"{directory}/2: the checkpoint is damaged" in caplog.text
        assert expected in caplog.text
        jax.tree.map(
            np.testing.assert_array_equal, checkpoints.restore(state_of(0.0)), state_of(1.5)
        )
        with pytest.raises(CheckpointError, match=f"2: damaged: .*{expected}"):
            checkpoints.restore(state_of(0.0), 2)
        # Reading moves nothing; a run that resumes at 1 saves 2 again.
        assert (directory / "2").exists()
        checkpoints.save(2, state_of(7.0), {})
    again = Checkpoints(directory)
    jax.tree.map(np.testing.assert_array_equal, again.restore(state_of(0.0)), state_of(7.0))
    assert [path.name for path in (tmp_path / "c.damaged").iterdir()] == ["2"]


def test_damage_to_any_file_is_detected(tmp_path):
    saved(tmp_path / "c", 1)
    files = [path for path in (tmp_path / "c/1").rglob("*/*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-1] if content else b"x")
        with pytest.raises(CheckpointError, match="all checkpoints are damaged"):
            Checkpoints(tmp_path / "c").latest_step()
        path.write_bytes(content)
    assert Checkpoints(tmp_path / "c").latest_step() == 1


def test_a_missing_item_is_damage(tmp_path):
    saved(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "2/state")
    assert Checkpoints(tmp_path).latest_step() == 1
    # Also without a manifest.
    (tmp_path / "2/manifest.json").unlink()
    assert Checkpoints(tmp_path).latest_step() == 1


def test_a_checkpoint_without_a_manifest_is_used(tmp_path):
    saved(tmp_path, 1, 2)
    (tmp_path / "2/manifest.json").unlink()
    assert Checkpoints(tmp_path).latest_step() == 2


def test_if_all_are_damaged_the_error_lists_the_damage(tmp_path):
    saved(tmp_path, 1, 2)
    cut(data_file(tmp_path, 1))
    flip(data_file(tmp_path, 2))
    with pytest.raises(CheckpointError) as error:
        Checkpoints(tmp_path).latest_step()
    text = str(error.value)
    assert "bytes, expected" in text and "SHA-256" in text and "another workdir" in text


def test_reading_does_not_touch_what_another_process_is_writing(tmp_path):
    saved(tmp_path, 1)
    incomplete = tmp_path / "2.orbax-checkpoint-tmp"
    incomplete.mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        checkpoints.restore(state_of(0.0))
    assert incomplete.exists()
    saved(tmp_path, 2)
    assert not incomplete.exists()


def test_a_full_disk_is_an_error_and_earlier_checkpoints_stay_intact(small_disk, caplog):
    directory = small_disk / "checkpoints"
    rng = np.random.default_rng(0)
    big = {"params": {"w": jnp.asarray(rng.random(10**6, np.float32))}, "step": 2, "average": None}
    saved(directory, 1)
    with pytest.raises(CheckpointError) as error, Checkpoints(directory) as checkpoints:
        checkpoints.save(2, jax.tree.map(jnp.asarray, big), {})
        checkpoints.wait()
    text = str(error.value)
    assert f"{directory}: step 2 could not be written (" in text
    assert re.search(r"MB free\): Failed to write \d+ bytes .*No space left on device\n", text), (
        text
    )
    assert not [record for record in caplog.records if record.exc_info]  # Orbax's tracebacks
    restored = Checkpoints(directory).restore(state_of(0.0))
    jax.tree.map(np.testing.assert_array_equal, restored, state_of(1.5))
    saved(directory, 2)  # deletes the incomplete one first
    assert Checkpoints(directory).latest_step() == 2
