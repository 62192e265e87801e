"""The number of steps of a run from the number of its images."""

import dataclasses

import pytest
from small import small_config

from retinanet_jax.config.settings import ConfigError, from_json, to_json
from retinanet_jax.training.early_stopping import patience_is_used_up
from retinanet_jax.training.run_length import with_run_length

AUTO = {"train__steps": "auto", "train__batch_size": 4, "optimizer__warmup_steps": 20}


@pytest.mark.parametrize(
    ("fields", "images", "steps", "warmup", "text"),
    [
        # 5 epochs of 10 images are 50 images: 12.5 batches of 4.
        ({"train__epochs": 5}, 10, 13, 1, "13 steps: 5 epochs of 10 images, 4 a step"),
        ({"train__epochs": 50}, 1, 13, 1, "13 steps: 50 epochs of 1 image, 4 a step"),
        ({"train__epochs": 0.5}, 1000, 125, 12, "125 steps: 0.5 epochs"),
        ({"train__auto_steps": (8.0, 400)}, 100, 400, 20, "400 steps: the minimum for 100 images"),
        ({"train__auto_steps": (8.0, 400)}, 5000, 10_000, 20, "10000 steps: 8 epochs"),
    ],
)
def test_steps_follow_from_epochs_and_images(fields, images, steps, warmup, text):
    config, message = with_run_length(small_config(**AUTO, **fields), images)
    assert (config.train.steps, config.optimizer.warmup_steps) == (steps, warmup)
    assert message.startswith(text)
    # What the workdir stores is the same run, whatever the number of images later.
    assert from_json(to_json(config)) == config == with_run_length(config, 7)[0]


@pytest.mark.parametrize(("steps", "every"), [(400, 52), (5200, 520), (30, 52)])
def test_evaluations_follow_epochs_and_are_at_most_ten(steps, every):
    config = small_config(train__steps=steps, train__evaluate_every="auto")
    config, message = with_run_length(config, 205)
    assert config.train.evaluate_every == every
    during = sum(config.train.evaluates_after(step) for step in range(1, steps + 1))
    assert during == (steps - 1) // every <= 10
    assert (f"every {every} steps" in message) == (during > 0)


def test_evaluations_of_every_step_are_named():
    config = small_config(train__steps=4, train__evaluate_every="auto")
    assert with_run_length(config, 1)[1] == "evaluates after each step and at the end"


@pytest.mark.parametrize(("steps", "warmup"), [(21, 20), (20, 2), (5, 0)])
def test_a_warm_up_ends_before_the_run(steps, warmup):
    config = small_config(train__steps=steps, optimizer__warmup_steps=20)
    config, message = with_run_length(config, 100)
    assert config.optimizer.warmup_steps == warmup
    assert message == ("" if warmup == 20 else f"warm-up of {warmup} steps instead of 20")


def test_numbers_stay():
    config = small_config(train__evaluate_every=2)
    assert with_run_length(config, 1000) == (config, "")


def test_a_run_has_one_length():
    with pytest.raises(ConfigError, match=r"train\.epochs: 20 and train\.steps: 4 are both set"):
        small_config(train__epochs=20.0)
    with pytest.raises(ConfigError, match=r"train\.epochs: 0\.0 must be above 0"):
        small_config(train__epochs=0.0, train__steps="auto")
    with pytest.raises(ConfigError, match=r"train\.patience: 3 requires evaluations"):
        small_config(train__patience=3)
    with pytest.raises(ConfigError, match="'many' is invalid; write a whole number or 'auto'"):
        small_config(train__steps="many")
    assert dataclasses.replace(small_config().train, steps="auto").epochs == "auto"


def test_patience_counts_the_evaluations_after_the_best():
    config = small_config(train__steps=100, train__evaluate_every=10, train__patience=2).train
    ends = [step for step in range(1, 101) if patience_is_used_up(config, step, best=30)]
    assert ends == [50, 60, 70, 80, 90]  # the last evaluation is after the run
    assert not patience_is_used_up(config, 50, best=None)
    endless = small_config(train__steps=100, train__evaluate_every=10).train
    assert not patience_is_used_up(endless, 90, best=10)
