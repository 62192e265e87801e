"""Short flags, and the call with the same names."""

import pytest

from retinanet_jax.cli.train import SHORT_FLAGS
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.config.short_settings import SHORT_SETTINGS, expand_short_flags, run_name
from retinanet_jax.inference.detector import Detector
from retinanet_jax.training import train_detector


def test_short_flags_become_fields():
    words, given = expand_short_flags(
        ["main", "--data", "my data", "--epochs=20", "--image_size=640x480", "--seed=1", "--lr=.1"]
    )
    assert words == [
        "main",
        "--config=folder",
        "--seed=1",
        "--config.data.root=my data",
        "--config.train.epochs=20",
        "--config.optimizer.learning_rate=.1",
        "--config.train.steps=auto",
        "--config.pipeline.min_side=480",
        "--config.pipeline.max_side=640",
    ]
    assert given["data"] == "my data"
    words, _ = expand_short_flags(["main", "--config=coco", "--data=d", "--steps=7"])
    assert words[1] == "--config=coco" and "--config.train.epochs=auto" in words
    assert set(SHORT_SETTINGS) == set(SHORT_FLAGS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs=2", "--steps=3"], "--epochs=2 and --steps=3: a run has one length"),
        (["--image_size=big"], "--image_size: 'big' is not a size in pixels"),
        (["--image_size=0"], "--image_size: '0' is not a size"),
        (["--lr=1", "--config.optimizer.learning_rate=2"], "--lr and --config.optimizer.learn"),
        (["--steps=1", "--config.train.epochs=2"], "--steps and --config.train.epochs are both"),
    ],
)
def test_conflicts_are_errors(words, message):
    with pytest.raises(ConfigError, match=message):
        expand_short_flags(["main", "--data=d", *words])


def test_a_run_has_the_name_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v1.5").mkdir()
    names = {"v1.5": "v1.5", "my data/": "my data", ".": tmp_path.name, "a/cells.json": "cells"}
    assert {data: run_name(data) for data in names} == names


def test_train_runs_the_experiment_of_the_command_line(tmp_path, monkeypatch):
    started, opened = [], []
    best = object.__new__(Detector)

    def started_with(config, workdir, loggers):
        started.append((config, workdir))

    monkeypatch.setattr(train_detector, "train_and_evaluate", started_with)
    monkeypatch.setattr(Detector, "from_checkpoint", lambda path: opened.append(str(path)) or best)
    monkeypatch.setattr(train_detector, "keep_compilations", lambda folder: None)
    monkeypatch.chdir(tmp_path)
    options = {"epochs": 20, "image_size": (480, 640), "weights": "none", "lr": 0.5}
    assert train_detector.train("my_data", **options, loss__gamma=1.5) is best
    assert opened == ["runs/my_data"]
    ((config, workdir),) = started
    assert str(workdir) == "runs/my_data"
    assert config.model.backbone == "resnet18" and config.model.pretrained is None
    assert (config.data.root, config.train.epochs, config.train.steps) == ("my_data", 20, "auto")
    assert (config.pipeline.min_side, config.pipeline.max_side) == (480, 640)
    assert (config.optimizer.learning_rate, config.loss.gamma) == (0.5, 1.5)
    with pytest.raises(ConfigError, match="set only one of them"):
        train_detector.train("my_data", name="a", workdir="b")
    with pytest.raises(ConfigError, match="--lr and --config"):
        train_detector.train("my_data", lr=0.5, optimizer__learning_rate=0.1)
