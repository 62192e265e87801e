"""What CONTRIBUTING.md adds works, in one small training; its list of mistakes fits the code."""

import json

import jax
import numpy as np
import pytest
from data_settings import data_settings
from documents import ROOT, blocks
from layout_writers import Annotated, write_image
from small import get_config, small_config

from retinanet_jax.config import sections
from retinanet_jax.config.settings import ConfigError, from_config_dict, from_json, to_json
from retinanet_jax.core import backbones, matching, targets
from retinanet_jax.core import box_losses as box
from retinanet_jax.core import focal as classification
from retinanet_jax.data import dataset, splits
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import find_layout
from retinanet_jax.data.from_function import dataset_of
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.data.pipeline import augmentation_config, host_augmentation
from retinanet_jax.training import evaluation, loggers, optimizer
from retinanet_jax.training.run import train_and_evaluate

NAMES = "OPTIMIZERS", "SCHEDULES", "METRICS", "LOGGERS"


@pytest.fixture(scope="module")
def added():
    """The names that the document's blocks define; what they added is taken away afterwards."""
    tables = (
        backbones.BACKBONES,
        classification.CLASS_LOSSES,
        box.BOX_LOSSES,
        matching.ASSIGNERS,
        optimizer.SCHEDULES,
        optimizer.OPTIMIZERS,
        evaluation.METRICS,
        loggers.OPENERS,
        augmentation_config.AUGMENTATIONS,
        dataset.LOADERS,
        find_layout.FINDERS,
    )
    lists = splits.KINDS, *(getattr(sections, name) for name in NAMES)
    before, before_lists = [dict(table) for table in tables], [list(names) for names in lists]
    names: dict = {}
    for block in blocks("CONTRIBUTING.md"):
        if block.language == "python":
            exec(compile(block.text, "CONTRIBUTING.md", "exec"), names)
    yield names
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
    for names, entries in zip(lists, before_lists, strict=True):
        names[:] = entries


def test_all_that_is_added_trains_together(added, tmp_path):
    config = small_config(
        data__name="squares",
        data__eval_split="validation",
        model__backbone="plain",
        loss__classification="asymmetric",
        loss__box="log_iou",
        matching__assigner="centre",
        optimizer__name="lion",
        optimizer__learning_rate=1e-3,
        optimizer__schedule="cooldown",
        evaluation__metric="count",
        train__loggers=("csv",),
        augmentation__own=("erase",),
    )
    train_and_evaluate(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) == config.train.steps and np.isfinite(losses).all()
    assert sum(line["positives"] for line in lines if line["kind"] == "train") > 0
    summary = json.loads((tmp_path / "results.json").read_text())["summary"]
    assert list(summary) == ["count_accuracy", "count_error"]
    logged = (tmp_path / "scalars.csv").read_text().splitlines()
    assert len([row for row in logged if row.startswith("2,train/loss,")]) == 1


def test_the_assigner_takes_the_smallest_box_at_a_centre(added):
    anchors = np.float32([[0, 0, 20, 20], [40, 0, 60, 20], [0, 40, 20, 60]])
    boxes = np.float32([[-10, -10, 30, 30], [5, 5, 15, 15], [38, -2, 58, 18], [0, 40, 20, 60]])
    valid = np.array([True, True, True, False])
    image = matching.ImageAnchors(anchors, (3,), 1, boxes, np.zeros(4, np.int32), valid)
    assert added["match_centres"](image, None).tolist() == [1, 2, targets.NEGATIVE]


def test_the_metric_counts_objects(added):
    """Eight images with one square each: right in image 0, one too many in image 1."""
    config = small_config(data__name="squares")
    squares = dataset.load_dataset(config.data, "validation")
    scores = [(0, 0.9), (0, 0.4), (1, 0.8), (1, 0.6)]
    results = [{"image_id": image, "score": score} for image, score in scores]
    summary, per_class = added["count_objects"](results, squares, config)
    assert summary == {"count_accuracy": 1 / 8, "count_error": 7 / 8} and per_class == {}


def test_the_schedule_decays_in_the_last_fifth(added):
    config = small_config(optimizer__schedule="cooldown", optimizer__learning_rate=0.5)
    schedule = optimizer.make_schedule(config.optimizer, 16, 100)
    rates = [schedule(step) for step in (0, 80, 85, 100)]
    np.testing.assert_allclose(rates, [0.5, 0.5, 0.25, 0], atol=1e-7)


def test_the_augmentation_depends_on_its_key_alone(added):
    example = added["white_square"](3)
    config = augmentation_config.AugmentationConfig(own=("erase",), flip=False)
    settings = small_config().pipeline
    seen = [
        host_augmentation.augment(lambda i: example, 0, 1, (0, 0, key, 1), settings, config).image
        for key in (*range(8), *range(8))
    ]
    for first, again in zip(seen[:8], seen[8:], strict=True):
        np.testing.assert_array_equal(first, again)
    changed = [not np.array_equal(image, example.image) for image in seen[:8]]
    assert any(changed) and not all(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e._replace(image=e.image[:32]), "an image of .*; return the same size"),
        (lambda e: e._replace(image=e.image / 255.0), "an image of float64; return uint8"),
        (lambda e: None, "NoneType; return the example, changed by example._replace"),
        (lambda e: e._replace(boxes=e.boxes[:0]), "0 boxes, 1 labels, 1 crowd, 1 areas; return"),
        (lambda e: e._replace(boxes=e.boxes[0]), "4 boxes, 1 labels"),
        (lambda e: e._replace(boxes=e.boxes + 99), "the box .* for an image of width 64 and heig"),
        (lambda e: e._replace(boxes=e.boxes[:, [2, 1, 0, 3]]), ".*return x1, y1, x2, y2 in pixel"),
        (lambda e: e._replace(boxes=e.boxes * np.nan), r"the box \[nan, nan, nan, nan\]"),
    ],
)
def test_an_augmentation_that_returns_another_kind_of_example_is_an_error(
    added, monkeypatch, change, message
):
    monkeypatch.setitem(augmentation_config.AUGMENTATIONS, "mine", lambda e, _: change(e))
    config = augmentation_config.AugmentationConfig(own=("mine",))
    read, settings = added["white_square"], small_config().pipeline
    with pytest.raises(ValueError, match=f"augmentation.own: 'mine' returned {message}"):
        host_augmentation.augment(read, 0, 8, (0, 0, 0, 1), settings, config)


def test_an_augmentation_may_move_boxes_partly_out_of_the_image(added, monkeypatch):
    read, settings = added["white_square"], small_config().pipeline
    move = lambda e, _: e._replace(boxes=e.boxes - np.float32([2, 12, 2, 12]))  # noqa: E731
    monkeypatch.setitem(augmentation_config.AUGMENTATIONS, "mine", move)
    config = augmentation_config.AugmentationConfig(own=("mine",), flip=False)
    found = host_augmentation.augment(read, 0, 8, (0, 0, 0, 1), settings, config)
    assert len(found.boxes) == 1


def test_a_module_of_the_environment_is_imported(tmp_path, monkeypatch):
    text = "from retinanet_jax.core.backbones import BACKBONES as B\nB['own'] = B['resnet18']\n"
    (tmp_path / "own_backbone.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(backbones.BACKBONES, "own", None)
    del backbones.BACKBONES["own"]
    stored = to_json(small_config()).replace('"resnet18"', '"own"', 1)
    with pytest.raises(ConfigError, match=r"(?s)'own' is not one of.*RETINANET_JAX_IMPORT=MODULE"):
        from_json(stored)
    monkeypatch.setenv("RETINANET_JAX_IMPORT", "json,own_backbone")
    assert from_json(stored).model.backbone == "own"
    monkeypatch.setenv("RETINANET_JAX_IMPORT", "no_such_module")
    with pytest.raises(ConfigError, match=r"RETINANET_JAX_IMPORT=no_such_module: ModuleNotFound"):
        from_config_dict(get_config())


def test_the_losses_are_what_they_say_with_finite_gradients(added):
    logits = np.float32([-100, -1, 0, 2, 100])
    focal = classification.FocalParams(gamma=2.0)
    negative = added["asymmetric_loss"](logits, np.zeros(5), focal)
    expected = classification.focal_loss(logits, np.zeros(5), gamma=2.0)
    np.testing.assert_allclose(negative, expected, rtol=1e-5, atol=1e-30)
    positive = added["asymmetric_loss"](logits, np.ones(5), focal)
    expected = classification.focal_loss(logits, np.ones(5), gamma=0.0)
    np.testing.assert_allclose(positive, expected, rtol=1e-5, atol=1e-30)
    slope = jax.grad(lambda x: added["asymmetric_loss"](x, np.zeros(5), focal).sum())(logits)
    assert np.isfinite(slope).all()


def test_a_data_set_of_a_function_is_scored_and_mixed(added):
    config = small_config(data__name="squares", data__mix=("squares::train*2",))
    assert len(load_training_set(config.data).source) == 3 * 64
    squares = dataset.load_dataset(config.data, "validation")
    truth = squares.ground_truth()
    assert [image["id"] for image in truth["images"]] == list(range(8))
    assert truth["annotations"][3]["bbox"] == [3.0, 8.0, 24.0, 24.0]
    assert squares.source.image_size(7) == (64, 64)
    with pytest.raises(IndexError, match="no image 8 of 8"):
        squares.source[8]


def test_the_layout_is_recognized_and_its_bad_lines_are_named(added, tmp_path):
    train = tmp_path / "train.boxes"
    train.write_text("a.png 1 2 30 20 cat\nb.png 5 5 9 9 dog\n")
    (tmp_path / "val.boxes").write_text("c.png 0 0 8 8 cat\n")
    for name in "abc":
        write_image(tmp_path, Annotated(f"{name}.png", 64, 48))
    settings = data_settings("folder", tmp_path, tmp_path / "cache")
    truth = dataset.load_dataset(settings, "train").ground_truth()
    assert [category["name"] for category in truth["categories"]] == ["cat", "dog"]
    boxes = sorted(entry["bbox"] for entry in truth["annotations"])
    assert boxes == [[1, 2, 30, 20], [5, 5, 9, 9]]
    assert len(dataset.load_dataset(settings, "val").source) == 1
    train.write_text("a.png 1 2 30\n")
    with pytest.raises(DataError, match=r"train\.boxes: line 1: is 'a.png 1 2 30'; write an image"):
        dataset.load_dataset(settings, "train")


def test_a_data_set_of_no_examples_has_no_ground_truth(added):
    empty = dataset_of(added["white_square"], 0, added["Categories"](("square",), (1,)), "none")
    truth = empty.ground_truth()
    assert len(empty.source) == 0 and truth["images"] == truth["annotations"] == []
    assert truth["categories"] == [{"id": 1, "name": "square"}]


def test_examples_with_the_same_id_are_told(added):
    categories = added["Categories"](("square",), (1,))
    twice = dataset_of(lambda i: added["white_square"](i % 2), 3, categories, "twice")
    with pytest.raises(DataError, match=r"example 2.*example 0: 0"):
        twice.ground_truth()


def test_each_kind_of_data_has_a_loader():
    assert list(dataset.LOADERS) == splits.KINDS


def test_each_addition_has_less_than_30_lines():
    for block in blocks("CONTRIBUTING.md"):
        if block.language == "python":
            assert len(block.text.splitlines()) < 30, (ROOT / "CONTRIBUTING.md", block.line)


def test_the_list_of_mistakes_fits_the_code(monkeypatch):
    """scripts/mutations.toml names text that occurs once; a change of code may move it."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import mutations

    assert len(mutations.read_mutations()) > 100
