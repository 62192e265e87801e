"""TFRecord datasets become ArrayRecord ones with the same records."""

import json
from pathlib import Path

import pytest
from array_record.python.array_record_module import ArrayRecordReader
from layout_writers import write_records
from releases import write_voc

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.store.array_record import TfdsSource, open_builder
from retinanet_jax.data.store.convert import convert_tfrecord
from retinanet_jax.data.store.voc_release import prepare_voc
from retinanet_jax.data.store.voc_source import VocSource


def records(path: Path) -> list[bytes]:
    return ArrayRecordReader(str(path)).read_all()


@pytest.fixture
def original(tmp_path):
    """voc/2007 as ArrayRecord."""
    folder = prepare_voc("2007", write_voc(tmp_path / "voc"), tmp_path / "original", "strict")
    return folder


@pytest.fixture
def tfrecord(original, tmp_path):
    """The same as TFDS prepares it by default."""
    folder = tmp_path / "tfrecord/voc/2007/5.0.0"
    folder.mkdir(parents=True)
    for path in original.iterdir():
        if ".array_record-" in path.name:
            write_records(folder / path.name.replace("array_record", "tfrecord"), records(path))
        elif path.name != "source.json" and path.suffix != ".npz":
            (folder / path.name).write_bytes(path.read_bytes())
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    return folder


def test_records_stay_the_same(original, tfrecord, tmp_path):
    folder = convert_tfrecord(tfrecord, tmp_path / "new")
    assert folder == tmp_path / "new/voc/2007/5.0.0"
    names = sorted(path.name for path in original.iterdir() if path.name != "source.json")
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        if ".array_record-" in name:
            assert records(folder / name) == records(original / name)
    assert open_builder(folder).info.full_name == "voc/2007/5.0.0"
    for split in ("train", "validation", "test"):
        ours, theirs = (VocSource(f, split, tmp_path) for f in (folder, original))
        assert (folder / f"index_{split}.npz").is_file()
        assert ours.image_id(0) == theirs.image_id(0)
        assert ours[0].boxes.tolist() == theirs[0].boxes.tolist() == [[2, 3, 14, 15]]
    assert convert_tfrecord(tfrecord, tmp_path / "new") == folder


def test_reading_a_tfrecord_dataset_names_the_command(tfrecord, tmp_path):
    with pytest.raises(DataError, match=rf"prepare --convert={tfrecord} --data_dir=NEW"):
        TfdsSource(tfrecord, "test", tmp_path)


def test_both_formats_side_by_side_need_no_conversion(original, tmp_path):
    """TFDS keeps a dataset in several formats in one folder, if asked to."""
    path = original / "dataset_info.json"
    info = json.loads(path.read_text())
    both = {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    path.write_text(json.dumps(info | both))
    assert VocSource(original, "test", tmp_path)[0].image_id == 3
    with pytest.raises(DataError, match=r"already exists as ArrayRecord; set data\.root"):
        convert_tfrecord(original, tmp_path / "new")


def test_errors_are_named_and_leave_nothing(original, tfrecord, tmp_path):
    with pytest.raises(DataError, match="array_record, not tfrecord"):
        convert_tfrecord(original, tmp_path / "new")
    with pytest.raises(DataError, match="already contains the TFRecord dataset; use another"):
        convert_tfrecord(tfrecord, tmp_path / "tfrecord")
    path = tfrecord / "voc-test.tfrecord-00000-of-00001"
    content = path.read_bytes()
    for damaged, message in (
        (content[:-5], "record 0: it is truncated"),
        (content * 2, "record 2: the file should hold 1 records"),
        (None, "does not exist"),
    ):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"voc-test\.tfrecord-00000-of-00001: {message}"):
            convert_tfrecord(tfrecord, tmp_path / "new")
        assert not (tmp_path / "new/voc").exists()
