"""Numbers in place of 'auto', for a run, its replay and a range test alike."""

from types import SimpleNamespace

import jax
import pytest
from memory_data import memory_dataset, objects_of
from small import small_config

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training import auto_batch_size, learning_rate_test, replay, run
from retinanet_jax.training.resolve_auto import resolve_auto

TWO_DEVICES = SimpleNamespace(size=2)


def test_each_choice_uses_the_ones_before_it(monkeypatch):
    seen = []

    def plan(config, train_set, mesh, batch_size):
        seen.append((config.anchors.size, config.pipeline.max_boxes, train_set))
        return 0

    monkeypatch.setattr(auto_batch_size, "planned_memory", plan)
    auto = {"anchors__size": "auto", "pipeline__max_boxes": "auto", "train__batch_size": "auto"}
    config = small_config(**auto, train__steps="auto", train__epochs=2.0, train__memory_limit=1.0)
    data = memory_dataset([objects_of([[20, 20, 32, 32]] * 130)] * 40)
    found, notes = resolve_auto(config, data, make_mesh(), log=lambda line: None)
    assert seen == [(2.0, 130, data)]
    assert (found.train.batch_size, found.train.steps) == (16, 5)  # 2 * 40 / 16
    assert [note.split(":")[0] for note in notes] == ["5 steps", "anchors of 2 strides"]
    assert resolve_auto(found, data, make_mesh()) == (found, ["", ""])


@pytest.mark.parametrize(
    ("module", "start"),
    [
        (run, lambda config, workdir: run.train_and_evaluate(config, workdir)),
        (replay, lambda config, workdir: replay.replay_step(config, workdir, 1)),
        (learning_rate_test, lambda config, _: learning_rate_test.learning_rate_test(config)),
    ],
)
def test_parts_of_a_batch_divide_over_the_devices(module, start, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "make_mesh", lambda: TWO_DEVICES)
    config = small_config(train__batch_size=4, optimizer__accumulate_steps=4)
    with pytest.raises(ConfigError, match=r"batch_size: 4 images in 4 parts .* over 2 devices"):
        start(config, tmp_path)


def test_the_first_process_alone_prints_what_a_replay_finds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(auto_batch_size, "planned_memory", lambda *_: 0)
    auto = {"train__batch_size": "auto", "train__memory_limit": 1.0}
    for process, output in ((1, ""), (0, "batch size 16: the train step needs")):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        with pytest.raises(ConfigError, match="not a step of the run"):
            replay.replay_step(small_config(**auto), tmp_path, 99)
        printed = capsys.readouterr().out
        assert printed.startswith(output) and bool(printed) == bool(output)
