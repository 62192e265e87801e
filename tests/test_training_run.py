"""Whole runs on the built-in dataset: resuming, evaluating, stopping, the files they write."""

import contextlib
import dataclasses
import json
import re
import shutil
from pathlib import Path
from unittest import mock

import cv2
import jax
import numpy as np
import pytest
from small import small_config

from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.example_sources import Annotated
from retinanet_jax.data.mix import load_datasets
from retinanet_jax.inference.detector import Detector
from retinanet_jax.inference.predict import make_predict_fn
from retinanet_jax.runtime.checkpoints import CheckpointError, Checkpoints
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training import loop, run, run_checkpoints, workdir_evaluation
from retinanet_jax.training.evaluation import Evaluation, evaluate
from retinanet_jax.training.meter import DivergenceError
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.run_checks import evaluation_warnings
from retinanet_jax.training.setup import RunCache
from retinanet_jax.training.step import focal_params
from retinanet_jax.training.train_state import TrainState
from retinanet_jax.training.workdir_evaluation import evaluate_workdir
from retinanet_jax.weights.run_weights import read_variables

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
NAMES += ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def arrays(workdir: Path) -> list[np.ndarray]:
    checkpoints = Checkpoints(workdir / "checkpoints")
    return jax.tree.leaves(checkpoints.read_part(("params", "batch_stats", "average", "step")))


def lines(workdir: Path, kind: str) -> list[dict]:
    entries = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == kind]


@pytest.fixture(scope="module")
def lowered():
    """The names of the functions that JAX lowers, in `finished`."""
    return []


@pytest.fixture(scope="module")
def finished(tmp_path_factory, lowered):
    """A run of four steps with a moving average, in one go."""
    workdir = tmp_path_factory.mktemp("finished")
    config = small_config(optimizer__ema_decay=0.9)

    def listen(event, seconds, fun_name="", **_):
        if event.endswith("jaxpr_to_mlir_module_duration"):
            lowered.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        return config, workdir, train_and_evaluate(config, workdir)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_programs_that_a_thread_compiled_are_those_that_run(finished, lowered):
    names = [name.removeprefix("jit_").removeprefix("jit(").rstrip(")") for name in lowered]
    assert names.count("train_step") == names.count("measure") == 1, lowered


def test_a_run_writes_its_files(finished):
    _, workdir, found = finished
    assert list(found.summary) == NAMES
    assert [line["step"] for line in lines(workdir, "train")] == [1, 2, 3, 4]
    line, *_ = lines(workdir, "eval")  # other tests evaluate again
    assert line["AP"] == pytest.approx(found.summary["AP"]) and set(NAMES) <= set(line)
    (raw,) = lines(workdir, "eval_raw")  # of the weights without the moving average
    assert raw["step"] == 4 and set(NAMES) <= set(raw)
    assert (workdir / "images" / "detections_000004.png").stat().st_size > 1000
    assert json.loads((workdir / "results.json").read_text())["step"] == 4
    assert isinstance(json.loads((workdir / "detections.json").read_text()), list)
    assert Checkpoints(workdir / "checkpoints").latest_step() == 4
    assert Checkpoints(workdir / "best/checkpoints").latest_step() == 4
    assert json.loads((workdir / "best/results.json").read_text())["summary"] == found.summary
    assert (workdir / "data_notes.txt").read_text() == "nothing was skipped or changed\n"


def write_faulty_folder(root: Path) -> None:
    """Two images per split, one of them missing, and a class without boxes."""
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    cv2.imwrite(str(root / "images/a.png"), np.zeros((64, 64, 3), np.uint8))
    content = {
        "images": [
            {"id": i, "file_name": name, "height": 64, "width": 64}
            for i, name in enumerate(("a.png", "b.png"))
        ],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 8}
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 0, "name": "background"}],
    }
    for split in ("train", "val"):
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))


def test_data_notes_are_logged_at_the_end(tmp_path, monkeypatch, capsys):
    write_faulty_folder(tmp_path)
    config = small_config(
        data__name="folder", data__root=str(tmp_path), data__cache_dir=str(tmp_path / "cache"),
        data__eval_split="val", data__on_error="skip",
    )  # fmt: skip
    found = Evaluation({"AP": None}, {}, [])

    def no_steps(*arguments, flops):
        assert flops() is None  # a CPU has no MFU
        arguments[-1].add(image_id=7, boxes=103, max_boxes=100)
        return mock.Mock(spec=TrainState, average=None, step=4)

    # Without what compiles.
    setup = mock.Mock(focal=focal_params(config.loss))
    monkeypatch.setattr(run, "make_setup", lambda *_, **__: setup)
    monkeypatch.setattr(
        run, "compiled_ahead", lambda functions, *_: contextlib.nullcontext(functions)
    )
    monkeypatch.setattr(run, "log_start", mock.Mock())
    monkeypatch.setattr(run, "run_steps", no_steps)
    monkeypatch.setattr(run_checkpoints, "evaluate_and_log", lambda *_, **__: found)
    monkeypatch.setattr(run_checkpoints, "keep_best", lambda *_: False)
    assert train_and_evaluate(config, tmp_path / "workdir") is found
    output = capsys.readouterr().out
    for line in (
        f"{tmp_path} train: 1 skipped or changed while reading:",
        "1 x missing image: instances_train.json: image id 1",
        "1 of 2 classes have no box and are not learned: background",
        f"{tmp_path} val: 2 skipped or changed",
        "1 x evaluation image that is also in the training split, which raises the AP: images/",
        "max_boxes left out 3 boxes, the smallest, of 1 image: id 7",
    ):
        assert line in output
    assert (tmp_path / "workdir/data_notes.txt").read_text() in output
    (peak,) = re.findall(r"peak memory of the process: (\d+\.\d\d) GB", output)
    assert 0.1 < float(peak) < 100


def test_a_stopped_and_resumed_run_ends_as_an_uninterrupted_one(finished, tmp_path, monkeypatch):
    config, workdir, found = finished
    # A stop after step 3, between the checkpoints of 2 and 4.
    add = loop.Meter.add

    def stop_at_3(self, step, metrics):
        add(self, step, metrics)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Meter, "add", stop_at_3)
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(config, tmp_path)
    monkeypatch.undo()
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 2
    again = train_and_evaluate(config, tmp_path)
    for ours, theirs in zip(arrays(tmp_path), arrays(workdir), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.summary == found.summary
    assert [line["step"] for line in lines(tmp_path, "train")] == [1, 2, 3, 4]


def test_evaluate_workdir_gives_the_same_metrics(finished):
    _, workdir, found = finished
    again = evaluate_workdir(None, workdir)
    assert again.summary == found.summary and again.losses == pytest.approx(found.losses)


def test_an_evaluation_with_views_is_recorded_as_such(finished, tmp_path):
    _, workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "copy")
    plain = {"flip": False, "scales": [1.0], "merge": "nms", "tile": None, "overlap": 0.2}
    assert json.loads((workdir / "results.json").read_text())["detection"] == plain
    again = evaluate_workdir(None, tmp_path / "copy", flip=True, merge="weighted")
    results = json.loads((tmp_path / "copy/results.json").read_text())
    assert results["detection"] == plain | {"flip": True, "merge": "weighted"}
    assert results["summary"] == again.summary
    assert len(lines(tmp_path / "copy", "eval")) == len(lines(workdir, "eval"))
    (line,) = lines(tmp_path / "copy", "eval_augmented")
    assert line["step"] == 4 and line["AP"] == pytest.approx(again.summary["AP"])


@pytest.mark.parametrize("names", [("tensorboard",), ()])
def test_an_evaluation_logs_to_tensorboard_if_the_run_does(finished, tmp_path, monkeypatch, names):
    _, workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "copy", ignore=shutil.ignore_patterns("tensorboard"))

    def described(*arguments):
        config, categories = describe(*arguments)
        train = dataclasses.replace(config.train, loggers=names)
        return dataclasses.replace(config, train=train), categories

    describe = workdir_evaluation.describe
    monkeypatch.setattr(workdir_evaluation, "describe", described)
    evaluate_workdir(None, tmp_path / "copy")
    assert (tmp_path / "copy/tensorboard").exists() == bool(names)


def test_the_loss_of_an_evaluation_is_logged(finished):
    _, workdir, found = finished
    assert list(found.losses) == ["loss", "class_loss", "box_loss"]
    assert 0 < found.losses["class_loss"] < found.losses["loss"] < 100
    line, *_ = (line for line in lines(workdir, "eval") if line["step"] == 4)
    assert {name: line[name] for name in found.losses} == found.losses
    results = json.loads((workdir / "results.json").read_text())
    assert results["losses"] == found.losses
    by_level = {f"P{level}": line[f"loss_P{level}"] for level in small_config().anchors.levels}
    assert results["losses_by_level"] == by_level == pytest.approx(found.losses_by_level)
    assert sum(by_level.values()) == pytest.approx(found.losses["loss"])
    assert list(results["losses_by_class"]) == list(found.per_class)
    assert 0 < sum(results["losses_by_class"].values()) < found.losses["loss"]


def test_evaluation_uses_the_network_of_the_checkpoint(finished):
    _, workdir, found = finished
    other = small_config(anchors__size=3.0, model__head_channels=32)
    assert evaluate_workdir(other, workdir).summary == found.summary


def test_an_evaluation_compiles_once_for_all_batches(finished):
    config, workdir, found = finished
    checkpoints = Checkpoints(workdir / "checkpoints")
    mesh = make_mesh()
    model = build_model(config.model, 5, config.anchors.anchors_per_location)
    predict_fn = make_predict_fn(model, config)
    dataset = load_dataset(config.data, "validation")
    assert len(dataset.source) % config.evaluation.batch_size  # the last batch is ragged
    for _ in range(2):
        again = evaluate(predict_fn, read_variables(checkpoints), dataset, config, mesh)
    assert again.summary == found.summary
    assert predict_fn.compiled._cache_size() == 1


def test_the_detector_finds_what_the_evaluation_found(finished):
    config, workdir, found = finished
    detector = Detector.from_checkpoint(workdir)
    source = load_dataset(config.data, "validation").source
    images = [source[i].image for i in range(len(source))]
    together = detector(images)
    for i, detections in enumerate(together):
        recorded = [r for r in found.results if r["image_id"] == source[i].image_id]
        np.testing.assert_allclose(detections.scores, [r["score"] for r in recorded], atol=1e-5)
    alone = detector(images[0])
    np.testing.assert_allclose(alone.boxes, together[0].boxes, atol=1e-2)
    assert detector([]) == []


def test_a_finished_run_started_again_only_evaluates(finished, capsys):
    config, workdir, found = finished
    before = arrays(workdir)
    assert train_and_evaluate(config, workdir).summary == found.summary
    assert "config.train.steps=4 is reached, so the run only evaluates" in capsys.readouterr().out
    for x, y in zip(arrays(workdir), before, strict=True):
        np.testing.assert_array_equal(x, y)


def test_fewer_steps_than_the_checkpoint_evaluates_it(finished, tmp_path, capsys):
    config, workdir, found = finished
    shutil.copytree(workdir, tmp_path / "copy")
    (tmp_path / "copy/best/results.json").unlink()  # the evaluation is the best again
    fewer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=2))
    assert train_and_evaluate(fewer, tmp_path / "copy").summary == found.summary
    output = capsys.readouterr().out
    assert "resumes at step 4" in output and "config.train.steps=2 is reached" in output
    assert json.loads((tmp_path / "copy/results.json").read_text())["step"] == 4
    assert Checkpoints(tmp_path / "copy/best/checkpoints").latest_step() == 4


def test_changed_settings_of_a_resumed_run_are_logged_with_old_and_new_value(
    finished, tmp_path, capsys
):
    config, workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "copy")
    results = json.loads((workdir / "best/results.json").read_text())
    results["summary"]["AP"] = -1.0  # any other evaluation would be better
    (tmp_path / "copy/best/results.json").write_text(json.dumps(results))
    optimizer = dataclasses.replace(config.optimizer, learning_rate=0.5)
    shapes = dataclasses.replace(config.data.shapes, num_eval=3)
    changed = dataclasses.replace(
        config, optimizer=optimizer, data=dataclasses.replace(config.data, shapes=shapes)
    )
    train_and_evaluate(changed, tmp_path / "copy")
    assert (
        "resumes with changed settings:\n"
        "config.data.shapes.num_eval was 5 and is now 3\n"
        "config.optimizer.learning_rate was 0.01 and is now 0.5\n"
    ) in capsys.readouterr().out
    # It trained nothing: the config is that of the training, and the best is not compared.
    config_file = (workdir / "config.json").read_text()
    assert (tmp_path / "copy/config.json").read_text() == config_file
    assert json.loads((tmp_path / "copy/best/results.json").read_text()) == results
    train_and_evaluate(config, workdir)
    assert "changed settings" not in capsys.readouterr().out


def without_objects(dataset, crowd: bool = False):
    """The dataset with no boxes, or with crowds only."""

    class Source:
        def __len__(self):
            return len(dataset.source)

        def __getattr__(self, name):
            return getattr(dataset.source, name)

        def __getitem__(self, index):
            example, keep = dataset.source[index], slice(None if crowd else 0)
            fields = {name: getattr(example, name)[keep] for name in ("boxes", "labels", "areas")}
            return example._replace(**fields, crowd=np.ones(len(fields["boxes"]), bool))

        def annotated(self, index):
            return Annotated(*self[index][1:5], dataset.source.image_size(index))

    truth = dataset.ground_truth() | {"annotations": []}
    return dataclasses.replace(dataset, source=Source(), ground_truth=lambda: truth)


@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("on_error", ["strict", "skip"])
def test_training_without_objects_is_an_error_before_the_first_step(tmp_path, crowd, on_error):
    config = small_config(data__on_error=on_error)
    train_set, eval_set = load_datasets(config.data)
    cache = RunCache()
    cache.datasets = lambda _: (without_objects(train_set, crowd), eval_set)
    with (
        mock.patch.object(run, "make_setup", side_effect=AssertionError("compiled")),
        pytest.raises(DataError, match=r"shapes train: none of its 16 images has an object"),
    ):
        train_and_evaluate(config, tmp_path, cache)


@pytest.mark.extended
def test_an_evaluation_without_objects_is_undefined_and_logged_before(tmp_path, capsys):
    config = small_config(train__steps=1, evaluation__example_images=0)
    train_set, eval_set = load_datasets(config.data)
    cache = RunCache()
    cache.datasets = lambda _: (train_set, without_objects(eval_set))
    found = train_and_evaluate(config, tmp_path, cache)
    assert set(found.summary.values()) == set(found.per_class.values()) == {None}
    output = capsys.readouterr().out
    warning = "warning: none of the 5 evaluation images of shapes validation has an object"
    assert output.index(warning) < output.index("step 1/1")
    assert re.search(r"AP +│ +- ", output) and "-1.0" not in output
    assert not (tmp_path / "best").exists()
    for text in ((tmp_path / name).read_text() for name in ("results.json", "metrics.jsonl")):
        assert '"AP": null' in text


def test_more_detections_than_coco_counts_are_logged():
    dataset = load_dataset(small_config().data, "validation")
    assert evaluation_warnings(dataset, small_config()) == []
    (warning,) = evaluation_warnings(dataset, small_config(postprocess__max_detections=300))
    assert "max_detections=300: COCO's AP uses only the 100 detections" in warning
    voc = small_config(postprocess__max_detections=300, evaluation__metric="voc")
    assert evaluation_warnings(dataset, voc) == []


@pytest.mark.parametrize(
    ("section", "field", "value", "change"),
    [
        ("model", "prior", 0.5, r"model\.prior was 0\.01 and is now 0\.5; use"),
        ("anchors", "size", 8.0, r"anchors\.size was \S+ and is now 8\.0; use"),
    ],
)
def test_another_model_in_the_same_workdir_is_an_error(finished, section, field, value, change):
    config, workdir, _ = finished
    part = dataclasses.replace(getattr(config, section), **{field: value})
    other = dataclasses.replace(config, **{section: part})
    with pytest.raises(CheckpointError, match=rf"config\.{change}"):
        train_and_evaluate(other, workdir)


def test_a_loss_that_is_not_finite_ends_the_run_after_the_last_checkpoint(tmp_path):
    config = small_config(
        optimizer__learning_rate=1e30, train__checkpoint_every=1, data__mix=("shapes::train[:4]*2",)
    )
    with pytest.raises(DivergenceError) as error:
        train_and_evaluate(config, tmp_path)
    text = str(error.value)
    assert text.startswith("step 2: the loss or the gradient is not finite (")
    assert (
        "class_loss" in text
        and "box_loss" in text
        and re.search(r"Image ids of the batch: shapes train(\[:4\])?: \d", text)
    )
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 1
    report = json.loads((tmp_path / "divergence/step_000002/report.json").read_text())
    assert report["step"] == 2 and "shapes train" in report["images"]
    assert {"loss", "learning_rate", "gradient_norm/backbone"} <= set(report["values"])
    image = cv2.imread(str(tmp_path / "divergence/step_000002/batch.png"))
    assert image.shape == (480, 4 * 480, 3) and image.std() > 10


def test_an_interrupted_evaluation_is_made_up_at_the_next_start(tmp_path, monkeypatch):
    config = small_config(train__evaluate_every=2, train__checkpoint_every=100)
    evaluated = []

    def interrupted(*arguments, **_):
        evaluated.append(arguments[6])
        raise KeyboardInterrupt

    monkeypatch.setattr(run_checkpoints, "evaluate_and_log", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, tmp_path)
        assert Checkpoints(tmp_path / "checkpoints").latest_step() == 2
    assert evaluated == [2, 2]


def test_patience_ends_a_run_that_then_does_not_resume(tmp_path, monkeypatch, capsys):
    """APs of .1, .3, .2, .3: with a patience of 2, the run ends at the fourth evaluation."""
    config = small_config(
        train__steps=8, train__evaluate_every=1, train__patience=2, evaluation__limit=2
    )
    values, evaluations = iter((0.1, 0.3, 0.2, 0.3, 0.25, 0.25)), []

    def evaluated(predict_fn, variables, dataset, config, mesh, log, step, *, tables, **_):
        evaluations.append((step, len(dataset.source), tables))
        return Evaluation({"AP": next(values)}, {}, [])

    monkeypatch.setattr(run_checkpoints, "evaluate_and_log", evaluated)
    assert train_and_evaluate(config, tmp_path).summary == {"AP": 0.25}
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 4
    assert Checkpoints(tmp_path / "best/checkpoints").latest_step() == 2
    # Of 5 images, evaluation.limit takes 2 during the run; at the end it takes all, with tables.
    at_end = (4, 5, True)
    assert evaluations == [(step, 2, False) for step in (1, 2, 3, 4)] + [at_end]
    assert "stops early, after step 4: no better evaluation since step 2" in capsys.readouterr().out

    monkeypatch.setattr(run.RunLog, "has_evaluation", lambda *_: True)
    monkeypatch.setattr(run, "run_steps", mock.Mock(side_effect=AssertionError("trained on")))
    assert train_and_evaluate(config, tmp_path).summary == {"AP": 0.25}
    assert evaluations[5:] == [at_end]
    assert "stops early, after step 4" in capsys.readouterr().out


def test_evaluating_an_empty_workdir_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint; train first"):
        evaluate_workdir(small_config(), tmp_path)
