"""Converts datasets that TFDS prepared as TFRecord, its default, to ArrayRecord.

A record is the same serialized Example in both formats and is copied unchanged, without TensorFlow.
A TFRecord file is a sequence of (length, CRC of the length, data, CRC of the data). The CRCs of
lengths are checked, and each record is parsed once; the CRCs of data are not checked.
"""

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tensorflow_datasets.core import file_adapters
from tqdm import tqdm

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.store.array_record import TfdsSource, open_builder, write_index
from retinanet_jax.data.store.complete_folder import prepare_once
from retinanet_jax.data.store.voc_release import VocSource

_INFO = "dataset_info.json"


def convert_tfrecord(folder: Path, data_dir: Path) -> Path:
    """Copies a prepared dataset with `coco` or `voc` features to DATA_DIR/NAME/CONFIG/VERSION.

    An existing target is not changed.

    Raises:
      DataError: it is not a TFRecord dataset, a file is missing or broken, or data_dir is its own.
    """
    builder = open_builder(folder, "tfrecord")
    if file_adapters.FileFormat.ARRAY_RECORD in builder.info.available_file_formats():
        what = "is there as ArrayRecord, too"
        raise DataError("prepared data", folder, "", what, "set data.root to it as it is")
    target = data_dir / builder.info.full_name
    if target.resolve() == folder.resolve():
        fix = "give another --data_dir; the old folder can be deleted afterwards"
        raise DataError("data_dir", data_dir, "", "is where the TFRecord dataset lies", fix)

    def write(temporary: Path) -> None:
        new = temporary / builder.info.full_name
        new.mkdir(parents=True)
        _copy_description(folder, new)
        images = sum(split.num_examples for split in builder.info.splits.values())
        with tqdm(total=images, desc="converting", unit="image") as progress:
            for split in builder.info.splits.values():
                for name, length in zip(split.filenames, split.shard_lengths, strict=True):
                    _convert_file(folder / name, new / _renamed(name), length, progress)
        for name in builder.info.splits:
            kind = TfdsSource if "image/id" in builder.info.features else VocSource
            write_index(kind(new, name, new))

    return prepare_once(data_dir, target, write)


def read_tfrecord(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file; DataError where it is cut short or damaged."""
    number = 0
    while header := file.read(12):
        length, crc = struct.unpack("<QI", header) if len(header) == 12 else (0, None)
        if crc != masked_crc32c(header[:8]):
            raise _broken(path, number, "its length is damaged")
        record, footer = file.read(length), file.read(4)
        if len(record) < length or len(footer) < 4:
            raise _broken(path, number, "it is cut short")
        yield record
        number += 1


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of some bytes, masked as TFRecord does it; slow."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _convert_file(source: Path, target: Path, length: int, progress: tqdm) -> None:
    if not source.is_file():
        raise DataError("missing file", source, "", "is not there", "copy the dataset again")
    count = 0

    def records() -> Iterator[tuple[int, bytes]]:
        nonlocal count
        with open(source, "rb") as file:
            for record in read_tfrecord(file, source):
                yield count, record
                count += 1
                progress.update()

    file_adapters.ArrayRecordFileAdapter.write_examples(target, records())
    if count != length:
        raise _broken(source, count, f"the file should hold {length} records")


def _broken(path: Path, number: int, what: str) -> DataError:
    return DataError("TFRecord", path, f"record {number}", what, "copy the dataset again")


def _copy_description(folder: Path, new: Path) -> None:
    """Copies everything but the records, with array_record in dataset_info.json."""
    for path in folder.iterdir():
        if path.is_file() and ".tfrecord-" not in path.name:
            shutil.copyfile(path, new / path.name)
    info = json.loads((folder / _INFO).read_text(encoding="utf-8"))
    info["fileFormat"] = "array_record"
    info.pop("alternativeFileFormats", None)
    (new / _INFO).write_text(json.dumps(info, indent=2), encoding="utf-8")


def _renamed(name: str) -> str:
    return name.replace(".tfrecord-", ".array_record-")
