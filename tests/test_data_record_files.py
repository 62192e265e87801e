"""TFRecord files: what TensorFlow writes, and files that are cut short, damaged or compressed."""

import gzip
import subprocess
import zlib

import pytest
from layout_writers import write_records

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.record_files import (
    Record,
    is_record_file,
    masked_crc32c,
    read_records,
    without_shard,
)

# Written by tf.io.TFRecordWriter of TensorFlow 2.21: b"retinanet", then b"".
BY_TENSORFLOW = bytes.fromhex(
    "090000000000000037f97139726574696e616e65747cad59ca000000000000000029039807d8ea82a2"
)


def test_what_tensorflow_writes_is_read(tmp_path):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(BY_TENSORFLOW)
    assert list(read_records(path)) == [Record(0, 12, b"retinanet"), Record(1, 37, b"")]
    assert masked_crc32c(b"retinanet") == int.from_bytes(BY_TENSORFLOW[21:25], "little")
    for size in range(1, len(BY_TENSORFLOW)):
        if size != 25:  # the end of the first record
            path.write_bytes(BY_TENSORFLOW[:size])
            with pytest.raises(DataError, match=rf"x\.tfrecord: record {int(size > 25)}: its? "):
                list(read_records(path))
    for place in (*range(12), *range(25, 37)):
        changed = bytearray(BY_TENSORFLOW)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.raises(DataError, match="length is damaged"):
            list(read_records(path))


def test_records_before_damage_are_read(tmp_path):
    path = tmp_path / "x.tfrecord"
    write_records(path, [b"a", b"bc", b"def"])
    path.write_bytes(path.read_bytes()[:-1])
    records = read_records(path)
    assert [next(records).data, next(records).data] == [b"a", b"bc"]
    with pytest.raises(DataError, match="record 2: it is truncated"):
        next(records)


def test_a_part_of_a_header_is_cut_short(tmp_path):
    path = tmp_path / "x.tfrecord"
    for size in range(1, 12):
        path.write_bytes(BY_TENSORFLOW[:25] + BY_TENSORFLOW[25 : 25 + size])
        with pytest.raises(DataError, match="record 1: it is truncated"):
            list(read_records(path))


def test_a_missing_and_a_compressed_file_are_errors_with_a_fix(tmp_path):
    with pytest.raises(DataError, match=r"x\.tfrecord: cannot be read \(No such file"):
        list(read_records(tmp_path / "x.tfrecord"))
    (tmp_path / "x.tfrecord").write_bytes(gzip.compress(BY_TENSORFLOW))
    with pytest.raises(DataError, match=r"is compressed \(GZIP\).* 'gzip -dc < x\.tfrecord'"):
        list(read_records(tmp_path / "x.tfrecord"))


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_the_command_that_the_error_shows_makes_a_file_that_is_read(tmp_path, compress):
    path = tmp_path / "x.tfrec"
    path.write_bytes(compress(BY_TENSORFLOW))
    assert is_record_file(path.read_bytes()[:12])
    with pytest.raises(DataError, match="is compressed") as error:
        list(read_records(path))
    command = str(error.value).partition("output of '")[2].rpartition("'")[0]
    found = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    assert found.stdout == BY_TENSORFLOW


@pytest.mark.parametrize("name", ["train.record", "train.record-00003-of-00010"])
def test_shards_have_the_name_of_their_set(name):
    assert without_shard(name) == "train.record"
    assert without_shard("train-00003-of-00010.tfrecord") == "train.tfrecord"
