"""Evaluations and analyses of a run with --data and --config.X, and what their results record."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from layout_writers import Annotated, Box, write_yolo
from small import small_config

from retinanet_jax import main as flags_of_runs
from retinanet_jax.cli import app
from retinanet_jax.config.run_changes import with_changes
from retinanet_jax.config.settings import Config, ConfigError, as_tree, from_config_dict
from retinanet_jax.reports.analysis.analyze_checkpoint import analyze_workdir
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.measurement import check_measured_alike
from retinanet_jax.runtime.workdir import WorkdirError
from retinanet_jax.training.config_of_evaluation import config_of_evaluation, measures_as_run
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.workdir_evaluation import evaluate_workdir


def write_folder(root: Path, train: int, val: int = 3) -> Path:
    """Images with `train` and `val` boxes."""
    splits = {
        split: [
            Annotated(
                f"{split}{i}.png",
                64,
                64,
                tuple(Box("cat" if k % 2 else "dog", k % 40, i * 9, 20, 24) for k in range(boxes)),
            )
            for i in range(4)
        ]
        for split, boxes in (("train", train), ("val", val))
        if boxes
    }
    write_yolo(root, splits)
    return root


def folder_config(root: Path, **fields) -> Config:
    data = {"data__name": "folder", "data__root": str(root), "data__cache_dir": f"{root}_cache"}
    auto = {"data__eval_split": "auto", "pipeline__max_boxes": "auto"}
    return small_config(**(data | auto | {"train__loggers": ()} | fields))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """A folder and the workdir of a run on it."""
    place = tmp_path_factory.mktemp("trained")
    root = write_folder(place / "data", train=5)
    train_and_evaluate(folder_config(root, postprocess__nms_iou=0.6), place / "run")
    return root, place / "run"


@pytest.fixture
def workdir(trained, tmp_path) -> Path:
    shutil.copytree(trained[1], tmp_path / "run")
    return tmp_path / "run"


def evaluate(monkeypatch, capsys, workdir: Path, *words: str) -> str:
    """The output of the command."""
    monkeypatch.setattr(flags_of_runs, "keep_programs", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        app.main(["evaluate", f"--model={workdir}", *words])
    said = capsys.readouterr()
    assert not ended.value.code, said
    return said.out


def results(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text(encoding="utf-8"))


def kinds(workdir: Path) -> list[str]:
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [kind for line in lines if (kind := json.loads(line)["kind"]) != "train"]


def test_data_without_config_keeps_the_settings_of_the_run(trained, workdir, monkeypatch, capsys):
    """More objects than in any image of the run, another size than in the folder's experiment."""
    root, _ = trained
    before = results(workdir)
    output = evaluate(monkeypatch, capsys, workdir, f"--data={root}")
    assert f"4 images of {root} val; short side 64, long side at most 64 pixels" in output
    assert results(workdir)["summary"] == before["summary"]
    assert kinds(workdir)[-1] == "eval"

    other = write_folder(workdir.parent / "other", train=2, val=120)
    output = evaluate(monkeypatch, capsys, workdir, f"--data={other}")
    assert f"4 images of {other} val; short side 64" in output
    found = results(workdir)["measured"]
    assert (found["dataset"], found["split"], found["images"]) == (f"{other} val", "val", 4)
    assert kinds(workdir)[-1] == "eval_other"
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["measured"] == found
    with pytest.raises(
        WorkdirError, match=rf"run has .* of {root} val, and .* of {other} val: not"
    ):
        check_measured_alike(trained[1], workdir, (trained[1], workdir))


def test_fields_change_the_settings_of_the_run(trained, workdir, monkeypatch, capsys):
    _, untouched = trained
    words = ["--config.postprocess.nms_iou=0.3", "--config.data.eval_split=train"]
    output = evaluate(monkeypatch, capsys, workdir, *words, "--image_size=96")
    assert "data train; short side 96, long side at most 96 pixels" in output
    assert results(workdir)["measured"]["split"] == "train"
    changes = {"postprocess.nms_iou": 0.3, "data.eval_split": "train"}
    again = evaluate_workdir(changes | dict.fromkeys(SIDES, 96), workdir)
    assert results(workdir)["summary"] == again.summary
    assert kinds(workdir)[-2:] == ["eval_other"] * 2
    assert analyze_workdir(untouched, changes).config.postprocess.nms_iou == 0.3


SIDES = ("pipeline.min_side", "pipeline.max_side")


def test_an_experiment_with_auto_is_evaluated(trained):
    root, workdir = trained
    config = folder_config(root, postprocess__nms_iou=0.6)
    assert config.pipeline.max_boxes == "auto"
    shown = evaluate_workdir(config, workdir).summary
    assert shown == evaluate_workdir(None, workdir).summary
    assert analyze_workdir(workdir, config).config.pipeline.max_boxes == 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config.model.backbone=resnet50"],
            "config.model.backbone: only for training, or fixed",
        ),
        (["--steps=3"], "config.train.steps: only for training"),
        (["--config.postprocess.nmsiou=3"], "no such field; did you mean nms_iou?"),
        (["--config.evaluation.backend=x"], "'x' is not one of pycocotools"),
        (["--config.augmentation.flip=yes"], "--config.augmentation.flip: 'yes' is invalid; write"),
    ],
)
def test_changes_without_effect_or_sense_are_errors(trained, words, message, monkeypatch, capsys):
    monkeypatch.setattr(flags_of_runs, "keep_programs", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        app.main(["evaluate", f"--model={trained[1]}", *words])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and message in said and said.count("\n") == 1, said


def test_a_loss_can_be_changed_in_an_evaluation_but_not_in_an_analysis(trained):
    stored = small_config()
    assert config_of_evaluation(stored, {"loss.gamma": 1.0}).loss.gamma == 1
    with pytest.raises(ConfigError, match=r"config\.loss\.gamma: only for training"):
        analyze_workdir(trained[1], {"loss.gamma": 1.0})


def test_changes_have_the_types_of_the_fields():
    stored = small_config(loss__gamma=2, data__classes=("a",), data__tile=128)
    stored = dataclasses.replace(stored, loss=dataclasses.replace(stored.loss, gamma=2))
    assert from_config_dict(as_tree(stored)) == stored
    changes = {"loss.gamma": 0.5, "data.tile": "none", "data.classes": ("b", "c")}
    changed = with_changes(stored, changes)
    assert (changed.loss.gamma, changed.data.tile, changed.data.classes) == (0.5, None, ("b", "c"))
    for field, value in (("data.tyle", 1), ("data.tile", "big"), ("data.exif", 3), ("data", 3)):
        with pytest.raises(ConfigError, match=rf"config\.{field}|tyle"):
            with_changes(stored, {field: value})


def test_another_kind_of_data_has_its_own_places():
    """A COCO run on a folder: not the folder's root with COCO's splits and annotations."""
    fields = {"root": "tfds", "annotations": "val.json", "eval_split": "minival", "exif": "stored"}
    stored = small_config(data__name="coco", **{f"data__{k}": v for k, v in fields.items()})
    data = with_changes(stored, {"data.name": "folder", "data.root": "mine"}).data
    assert (data.root, data.annotations, data.eval_split) == ("mine", "", "validation")
    assert data.exif == "stored"  # how images are read is not a place
    data = with_changes(stored, {"data.name": "coco", "data.root": "copy"}).data
    assert (data.root, data.annotations, data.eval_split) == ("copy", "val.json", "minival")


def test_what_the_metrics_do_not_depend_on_is_an_evaluation_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = folder_config(Path("data"))
    same = {"data.root": str(tmp_path / "data"), "data.cache_dir": "c", "evaluation.batch_size": 1}
    assert measures_as_run(stored, with_changes(stored, same))
    for field, value in (("data.root", "b"), ("data.tile", 32), ("evaluation.metric", "lvis")):
        assert not measures_as_run(stored, with_changes(stored, {field: value}))


def test_the_best_checkpoint_starts_anew_on_other_data(trained, workdir, capsys):
    root, _ = trained
    best = workdir / "best/results.json"
    before = json.loads(best.read_text(encoding="utf-8"))
    assert before["measured"]["split"] == "val"
    before["summary"]["AP"] = 1.0  # which no checkpoint beats
    best.write_text(json.dumps(before), encoding="utf-8")
    fields = {"postprocess__nms_iou": 0.6, "train__checkpoint_every": 1}
    train_and_evaluate(folder_config(root, train__steps=5, **fields), workdir)
    assert json.loads(best.read_text(encoding="utf-8")) == before
    capsys.readouterr()
    train_and_evaluate(
        folder_config(root, train__steps=6, data__eval_split="train", **fields), workdir
    )
    found = json.loads(best.read_text(encoding="utf-8"))
    assert found["step"] == 6 and found["measured"]["split"] == "train"
    assert Checkpoints(best.with_name("checkpoints")).latest_step() == 6
    said = capsys.readouterr().out.replace("\n", "")
    assert f"measured otherwise (coco on 4 images of {root} val)" in said
    np.testing.assert_array_less(found["summary"]["AP"], 1)
