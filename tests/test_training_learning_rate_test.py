"""The range test of the learning rate, with a stand-in for the network."""

import functools
import json
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_config

from retinanet_jax.config.settings import ConfigError, from_json, read_config_file, to_json
from retinanet_jax.core.focal import FocalParams
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.reports.learning_rate_plot import draw_range_test
from retinanet_jax.reports.plot_style import svg_file
from retinanet_jax.training import auto_learning_rate, run
from retinanet_jax.training import learning_rate_test as tested
from retinanet_jax.training.learning_rate_test import RangeTest
from retinanet_jax.training.replay import replay_step
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.setup import TrainingSetup
from retinanet_jax.training.train_state import TrainState


@pytest.fixture
def run_test(monkeypatch):
    """Runs the test of a loss that is a function of the rate of the step."""

    def run(loss_of_rate, **fields):
        config = small_config(**fields)
        used = []

        def step_fn(state, batch, focal, learning_rate):
            used.append(float(learning_rate))
            return state, {"loss": np.float32(loss_of_rate(used[-1]))}

        def setup(config, categories, mesh, log, functions, train_set):
            focal, state = FocalParams(jnp.float32(2), None), TrainState(0, {}, {}, {})
            return TrainingSetup(step_fn, None, focal, lambda step: np.nan, state)

        monkeypatch.setattr(tested, "make_setup", setup)
        limits = {"steps": 61, "lowest": 1e-6, "highest": 1.0, "log": lambda text: None}
        return tested.learning_rate_test(config, **limits), used

    return run


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_lowest_loss(run_test):
    # The loss falls up to a rate of .01 and is a hundred times higher above it.
    def loss(rate):
        return 2 - 100 * rate if rate < 0.0101 else 100.0

    found, used = run_test(loss, train__batch_size=4)
    # For sgd, the rate of a batch of 4 is a quarter of that in the config, for 16 images.
    np.testing.assert_allclose(used, np.array(found.rates) / 4, rtol=1e-4)
    assert found.suggestion == pytest.approx(4 * 0.01 / 10, rel=0.4)
    assert len(used) < 61 and found.losses[-1] == 100  # it ends where the loss diverges
    figure = draw_range_test(found)
    assert figure.axes[0].get_xscale() == "log"
    texts = re.findall(r">([^<>]+)</text>", svg_file(figure, "learning rate"))
    assert {"0.0001", "0.001"} <= set(texts) and not any("$" in text for text in texts)


def test_a_loss_that_is_never_finite_has_an_empty_plot(run_test):
    found, _ = run_test(lambda rate: np.nan)
    assert found.losses == [] and found.suggestion is None
    draw_range_test(found)


def test_a_loss_that_never_falls_gives_no_suggestion(run_test):
    found, used = run_test(lambda rate: 1.5)
    assert found.suggestion is None and len(used) == 61
    assert found.rates[0] == pytest.approx(1e-6) and found.rates[-1] == pytest.approx(1.0)
    np.testing.assert_allclose(np.diff(np.log(found.rates)), np.log(1e6) / 60, rtol=1e-6)


def test_the_moving_average_has_no_bias_and_nan_ends_the_test(run_test):
    assert tested.smooth([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    found, used = run_test(lambda rate: 1.0 if rate < 1e-4 else np.nan)
    assert np.isfinite(found.losses).all() and len(used) == len(found.losses) + 1
    with pytest.raises(ConfigError, match="write at least 10 steps"):
        tested.learning_rate_test(small_config(), steps=5)


AUTO = {"optimizer__learning_rate": "auto"}


@pytest.fixture
def found(monkeypatch):
    """Stands in for the test: what it finds, and how often it runs."""
    results = []

    def give(config, *, dataset, log, functions):
        assert dataset is not None
        return results.pop()

    monkeypatch.setattr(auto_learning_rate, "learning_rate_test", give)
    return results


def test_the_rate_is_that_of_the_test(found, tmp_path):
    config, log = small_config(**AUTO), []
    dataset = load_training_set(config.data)
    found.append(RangeTest([1e-3, 1e-1], [2.0, 1.0], [2.0, 1.0], 0.01))
    tested_one = auto_learning_rate.with_learning_rate(config, dataset, tmp_path, log.append)
    assert tested_one == small_config(optimizer__learning_rate=0.01) and found == []
    assert len(log) == 2 and "learning rate 0.01, chosen by the range test in" in log[-1]
    stored = json.loads((tmp_path / "learning_rate.json").read_text())
    assert stored == {"learning_rate": 0.01, "rates": [1e-3, 1e-1], "losses": [2.0, 1.0]}
    number = small_config(optimizer__learning_rate=0.5)
    assert auto_learning_rate.with_learning_rate(number, dataset, tmp_path, log.append) is number


def test_a_start_without_a_checkpoint_tests_again(found, tmp_path, monkeypatch):
    """The first start found .01, and ended before its first checkpoint."""
    monkeypatch.setattr(run, "compiled_ahead", mock.Mock(side_effect=MemoryError))
    monkeypatch.setattr(run.RunCache, "functions", mock.Mock())
    monkeypatch.setattr(run, "check_resumes_same_run", mock.Mock())
    found.extend(RangeTest([1e-3], [1.0], [1.0], rate) for rate in (0.002, 0.01))

    def learning_rate():
        with pytest.raises(MemoryError):
            train_and_evaluate(small_config(**AUTO), tmp_path)
        return read_config_file(tmp_path / "config.json").optimizer.learning_rate

    assert (learning_rate(), learning_rate()) == (0.01, 0.002)
    monkeypatch.setattr(run.Checkpoints, "latest_step", lambda self: 2)
    assert learning_rate() == 0.002  # another test would be an IndexError


def test_the_step_of_the_test_is_that_of_the_run(tmp_path, monkeypatch):
    """The rate is its argument, so that it is lowered once for both."""
    lowered = []

    def listen(event, seconds, fun_name="", **_):
        if event.endswith("jaxpr_to_mlir_module_duration"):
            lowered.append(fun_name)

    ten_steps = functools.partial(tested.learning_rate_test, steps=10)
    monkeypatch.setattr(auto_learning_rate, "learning_rate_test", ten_steps)
    monkeypatch.setattr(auto_learning_rate, "_checked", lambda found: 0.01)
    monkeypatch.setattr(run, "evaluate_at_end", lambda *_: None)
    monkeypatch.setattr(run, "write_data_notes", lambda *_: None)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        train_and_evaluate(small_config(**AUTO, train__steps=1), tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert sum("train_step" in name for name in lowered) == 1, lowered
    assert sum("first_state" in name for name in lowered) == 1, lowered


def test_a_run_without_a_rate_at_which_the_loss_falls_ends_before_its_first_step(found, tmp_path):
    found.append(RangeTest([1e-3, 1e-1], [1.0, 2.0], [1.0, 2.0], None))
    with pytest.raises(ConfigError, match=r"learning_rate: 'auto' found no rate .* within 2 steps"):
        train_and_evaluate(small_config(**AUTO), tmp_path)
    assert not (tmp_path / "learning_rate.json").exists()


def test_a_replay_takes_the_rate_of_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json has no rate; write that of the run"):
        replay_step(small_config(**AUTO), tmp_path, 99)
    (tmp_path / "config.json").write_text(to_json(small_config(optimizer__learning_rate=0.01)))
    with pytest.raises(ConfigError, match="not a step of the run"):
        replay_step(small_config(**AUTO), tmp_path, 99)


def test_the_word_auto_passes_through_the_config():
    config = small_config(**AUTO)
    assert from_json(to_json(config)).optimizer.learning_rate == "auto"
    with pytest.raises(ConfigError, match=r"learning_rate: 'fast' is invalid; .* or 'auto'"):
        small_config(optimizer__learning_rate="fast")
