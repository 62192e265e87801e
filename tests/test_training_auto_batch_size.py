"""train.batch_size='auto': the plan of the compiler against the memory."""

from types import SimpleNamespace
from unittest import mock

import jax
import pytest
from memory_data import memory_dataset, objects_of
from small import small_config

from retinanet_jax.config.settings import ConfigError, from_json, read_config_file, to_json
from retinanet_jax.runtime import machine_memory
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training import auto_batch_size as tested
from retinanet_jax.training import run
from retinanet_jax.training.replay import replay_step
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.setup import compile_functions

AUTO = {"train__batch_size": "auto"}
GIB = 2**30
DATA = memory_dataset([objects_of([])] * 3, names="abcde", size=(40, 60))


@pytest.fixture
def planned(monkeypatch):
    """Stands in for the compiler: 1 GiB and a quarter for each image; lists the sizes tried."""
    tried = []

    def plan(config, train_set, mesh, batch_size):
        tried.append(batch_size)
        return int((1 + 0.25 * batch_size) * GIB)

    monkeypatch.setattr(tested, "planned_memory", plan)
    return tried


@pytest.mark.parametrize(
    ("limit", "parts", "chosen", "tried"),
    [
        (100.0, 1, 16, [16]),
        (5.6, 1, 16, [16]),  # 90% of it are 5.04 GiB
        (5.5, 1, 8, [16, 8]),
        (2.3, 1, 4, [16, 8, 4]),
        (1.4, 1, 1, [16, 8, 4, 2, 1]),
        (3.5, 4, 8, [16, 8]),
        (100.0, 24, 24, [24]),
    ],
)
def test_the_largest_batch_that_fits_is_chosen(planned, limit, parts, chosen, tried):
    config = small_config(
        **AUTO, train__memory_limit=limit, optimizer__accumulate_steps=parts, train__steps=10
    )
    lines = []
    found = tested.with_batch_size(config, DATA, make_mesh(), lines.append)
    assert found.train.batch_size == chosen and planned == tried and len(lines) == len(tried)
    assert "within 90%" in lines[-1] and all("more than 90%" in line for line in lines[:-1])


def test_what_never_fits_is_an_error_before_the_first_step(planned, tmp_path):
    config = small_config(**AUTO, train__memory_limit=1.0)
    with pytest.raises(ConfigError, match=r"that fits: 1 images need 1\.25 GiB .* of 1\.00 GiB"):
        train_and_evaluate(config, tmp_path)


def test_a_run_that_resumes_keeps_its_batch_size(planned, tmp_path):
    (tmp_path / "config.json").write_text(to_json(small_config(train__batch_size=12)))
    found = tested.with_batch_size(small_config(**AUTO), DATA, make_mesh(), print, tmp_path)
    assert found == small_config(train__batch_size=12) and planned == []
    with pytest.raises(ConfigError, match="not a step of the run"):
        replay_step(small_config(**AUTO), tmp_path, 99)
    assert planned == []


def test_a_start_without_a_checkpoint_chooses_again(planned, tmp_path, monkeypatch):
    """The first start chose 16, and ended before its first checkpoint."""
    monkeypatch.setattr(run, "compiled_ahead", mock.Mock(side_effect=MemoryError))
    monkeypatch.setattr(run.RunCache, "functions", mock.Mock())
    monkeypatch.setattr(run, "check_resumes_same_run", mock.Mock())

    def batch_size(limit):
        with pytest.raises(MemoryError):
            train_and_evaluate(small_config(**AUTO, train__memory_limit=limit), tmp_path)
        return read_config_file(tmp_path / "config.json").train.batch_size

    assert (batch_size(100.0), batch_size(2.3)) == (16, 4)
    monkeypatch.setattr(run.Checkpoints, "latest_step", lambda self: 2)
    assert batch_size(100.0) == 4


@pytest.mark.extended
def test_the_plan_has_the_state_and_grows_by_more_than_the_images():
    config, mesh = small_config(model__norm="group"), make_mesh()
    few, many = (tested.planned_memory(config, DATA, mesh, size) for size in (2, 16))
    state = compile_functions(config, 5, mesh).state_shapes
    assert few > sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    # The stem alone keeps 32 x 32 x 64 float32 of each image of 64 x 64 for the gradient.
    assert many - few > 14 * (64 * 64 * 3 + 32 * 32 * 64 * 4)


@pytest.mark.parametrize(
    ("train_canvas", "canvas"),
    [("few", (128, 128)), ("one", (64, 128))],  # of landscapes alone
)
def test_the_plan_is_that_of_the_largest_canvas(monkeypatch, train_canvas, canvas):
    planned = []
    compiled = SimpleNamespace(compile=lambda: None)
    lower = lambda *arguments: planned.append(arguments) or compiled  # noqa: E731
    monkeypatch.setattr(tested, "lower_program", lower)
    monkeypatch.setattr(tested, "needed_memory", lambda compiled: 7)
    sides = {"pipeline__max_side": 128, "augmentation__scales": (32, 64)}
    config = small_config(**sides, pipeline__train_canvas=train_canvas)
    assert tested.planned_memory(config, DATA, make_mesh(), 2) == 7
    ((mode, _, classes, _, *found),) = planned
    assert (mode, classes, *found) == ("train", 5, canvas, 2)


def test_devices_without_memory_of_their_own_share_that_of_the_machine(monkeypatch):
    device = SimpleNamespace(memory_stats=lambda: None)
    monkeypatch.setattr(tested.jax, "local_devices", lambda: [device] * 4)
    monkeypatch.setattr(tested, "available_memory", lambda: 1000)
    assert tested.memory_limit(small_config(**AUTO)) == 250


def test_the_words_and_invalid_limits():
    config = small_config(**AUTO)
    assert from_json(to_json(config)) == config and config.train.memory_limit == "auto"
    assert 0 < tested.memory_limit(config) <= machine_memory.available_memory() * 1.5
    for fields, says in (
        ({"train__batch_size": "all"}, r"batch_size: 'all' is invalid; .* or 'auto'"),
        ({"train__memory_limit": -1.0}, r"memory_limit: -1.0 must be above 0"),
    ):
        with pytest.raises(ConfigError, match=says):
            small_config(**fields)
