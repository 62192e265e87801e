"""Our parser of records against TFDS's own decoding of them."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_settings import as_array_record
from google.protobuf.message import DecodeError
from test_data_mix import write_folder

from retinanet_jax.data.store.array_record import TfdsSource, open_builder
from retinanet_jax.data.store.tfds_record import parse_record


@pytest.fixture
def prepared(tmp_path):
    """Three images with 2, 1 and no objects, one of them a crowd."""
    folder = write_folder(tmp_path / "folder", ["red", "blue"], 3)
    path = folder / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][1] |= {"image_id": 0, "bbox": [1.5, 2.25, 10, 7], "iscrowd": 1}
    content["annotations"][2] |= {"image_id": 1}
    path.write_text(json.dumps(content))
    return as_array_record(folder, "train", tmp_path / "cache")


def test_records_are_what_tfds_decodes(prepared, tmp_path):
    source = TfdsSource(prepared, "train", tmp_path / "cache")
    decoders = {"image": tfds.decode.SkipDecoding()}
    theirs = open_builder(prepared).as_data_source(split="train", decoders=decoders)
    assert sorted(len(theirs[i]["objects"]["label"]) for i in range(3)) == [0, 1, 2]
    for i in range(3):
        ours, wanted = source.record(i), theirs[i]
        for name in ("image", "image/filename", "image/id"):
            assert ours[name] == wanted[name]
        assert set(ours["objects"]) == set(wanted["objects"])
        for name, values in wanted["objects"].items():
            np.testing.assert_array_equal(ours["objects"][name], np.ravel(values), err_msg=name)


def test_what_is_no_record_is_refused():
    with pytest.raises(DecodeError):
        parse_record(b"\xff\xfe no record")
