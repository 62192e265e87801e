"""Names of splits, which mean the same wherever they are read."""

import pytest

from retinanet_jax.data.annotations.split_names import (
    is_split_name,
    resolve_splits,
    same_split_names,
    split_kind,
)
from retinanet_jax.data.formats.labelbox_rows import split_of


@pytest.mark.parametrize(
    "kind, names",
    [
        ("train", ["train", "Training", "train2017"]),
        ("val", ["val", "valid", "validate", "Validation", "dev", "eval", "val_1", "valid 2"]),
        ("test", ["test", "testing", "test-dev", "test-dev2017", "TEST"]),
        ("", ["trainval", "trainval2012"]),
    ],
)
def test_a_split_has_one_kind_by_each_of_its_names(kind, names):
    assert {split_kind(name) for name in names} == {kind}
    assert all(map(is_split_name, names))


@pytest.mark.parametrize("name", ["", "images", "trained", "train_images", "2017", "valve"])
def test_other_names_are_not_of_a_split(name):
    assert split_kind(name) == "" and not is_split_name(name) and not same_split_names(name)


def test_a_validate_split_is_one_wherever_it_is_named():
    assert resolve_splits("train", "auto", ["train", "validate"]).evaluation == "validate"
    assert split_of({"split": "Validate"}, "rows.json", "row 1") == "val"
