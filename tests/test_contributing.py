"""What CONTRIBUTING.md adds works: a backbone, losses and a dataset in one small training."""

import json

import jax
import numpy as np
import pytest
from documents import ROOT, blocks
from small import small_config

from retinanet_jax.core import backbones
from retinanet_jax.core import box_losses as box
from retinanet_jax.core import focal as classification
from retinanet_jax.data import dataset, splits
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.from_function import dataset_of
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.training.run import train_and_evaluate


@pytest.fixture(scope="module")
def added():
    """The names that the document's blocks define; what they added is taken away afterwards."""
    tables = (
        backbones.BACKBONES,
        classification.CLASS_LOSSES,
        box.BOX_LOSSES,
        dataset.LOADERS,
    )
    before, kinds = [dict(table) for table in tables], list(splits.KINDS)
    names: dict = {}
    for block in blocks("CONTRIBUTING.md"):
        if block.language == "python":
            exec(compile(block.text, "CONTRIBUTING.md", "exec"), names)
    yield names
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
    splits.KINDS[:] = kinds


def test_all_that_is_added_trains_together(added, tmp_path):
    config = small_config(
        data__name="squares",
        data__eval_split="validation",
        model__backbone="plain",
        loss__classification="asymmetric",
        loss__box="log_iou",
    )
    train_and_evaluate(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) == config.train.steps and np.isfinite(losses).all()
    assert json.loads((tmp_path / "results.json").read_text())["per_class"].keys() == {"square"}


def test_the_losses_are_what_they_say_with_finite_gradients(added):
    logits = np.float32([-100, -1, 0, 2, 100])
    focusing = classification.Focusing(gamma=2.0)
    negative = added["asymmetric_loss"](logits, np.zeros(5), focusing)
    expected = classification.focal_loss(logits, np.zeros(5), gamma=2.0)
    np.testing.assert_allclose(negative, expected, rtol=1e-5, atol=1e-30)
    positive = added["asymmetric_loss"](logits, np.ones(5), focusing)
    expected = classification.focal_loss(logits, np.ones(5), gamma=0.0)
    np.testing.assert_allclose(positive, expected, rtol=1e-5, atol=1e-30)
    slope = jax.grad(lambda x: added["asymmetric_loss"](x, np.zeros(5), focusing).sum())(logits)
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


def test_a_data_set_of_no_examples_has_no_ground_truth(added):
    empty = dataset_of(added["white_square"], 0, added["Categories"](("square",), (1,)), "none")
    truth = empty.ground_truth()
    assert len(empty.source) == 0 and truth["images"] == truth["annotations"] == []
    assert truth["categories"] == [{"id": 1, "name": "square"}]


def test_examples_with_the_same_id_are_told(added):
    categories = added["Categories"](("square",), (1,))
    twice = dataset_of(lambda i: added["white_square"](i % 2), 3, categories, "twice")
    with pytest.raises(DataError, match=r"example 2.*example 0, too: 0"):
        twice.ground_truth()


def test_each_kind_of_data_has_a_loader():
    assert list(dataset.LOADERS) == splits.KINDS


def test_each_addition_has_less_than_30_lines():
    for block in blocks("CONTRIBUTING.md"):
        if block.language == "python":
            assert len(block.text.splitlines()) < 30, (ROOT / "CONTRIBUTING.md", block.line)
