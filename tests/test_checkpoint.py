"""Checkpoints: what goes in comes out, bit for bit, and what cannot be read says why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retinanet_jax.checkpoint import CheckpointError, Checkpoints


def state_of(value: float) -> dict:
    return {"params": {"w": jnp.full((3, 2), value)}, "step": jnp.int32(value), "average": None}


def test_round_trip_of_the_latest(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, state_of(step + 0.1), {"names": ["é"], "ids": [7]})
    checkpoints.wait()
    assert checkpoints.latest_step() == 3
    restored = checkpoints.restore(state_of(0.0))
    jax.tree.map(np.testing.assert_array_equal, restored, state_of(3.1))
    assert checkpoints.read_metadata() == {"format": 1, "step": 3, "names": ["é"], "ids": [7]}
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == ["2", "3"]


def test_a_part_is_read_without_knowing_the_rest(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state_of(5.0), {})
    checkpoints.wait()
    part = checkpoints.read_part(("params", "average"))
    assert part["average"] is None and set(part) == {"params", "average"}
    np.testing.assert_array_equal(part["params"]["w"], state_of(5.0)["params"]["w"])


def test_saving_an_earlier_step_is_an_error_and_not_silence(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state_of(5.0), {})
    checkpoints.wait()
    with pytest.raises(CheckpointError, match="step 4 was not saved, since step 5 is there"):
        checkpoints.save(4, state_of(4.0), {})


def test_nothing_there_and_junk_with_a_number(tmp_path):
    (tmp_path / "9000").mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() is None
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoints.restore(state_of(0.0))


def test_another_shape_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1.0), {})
    checkpoints.wait()
    with pytest.raises(CheckpointError, match="does not fit this model"):
        checkpoints.restore({**state_of(0.0), "params": {"w": jnp.zeros((5, 5))}})


def test_damaged_metadata_names_the_file(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1.0), {})
    checkpoints.wait()
    (tmp_path / "1" / "metadata" / "metadata").write_text("{")
    with pytest.raises(CheckpointError, match="metadata: cannot be read"):
        checkpoints.read_metadata()
