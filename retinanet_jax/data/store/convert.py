"""Converts datasets that TFDS prepared as TFRecord, its default, to ArrayRecord.

A record is the same serialized Example in both formats and is copied unchanged, without TensorFlow.
Each record is parsed once.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from tensorflow_datasets.core import file_adapters
from tqdm import tqdm

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.record_files import read_records
from retinanet_jax.data.store.array_record import TfdsSource, open_builder, write_index
from retinanet_jax.data.store.complete_folder import prepare_once
from retinanet_jax.data.store.voc_source import VocSource

_INFO = "dataset_info.json"


def convert_tfrecord(folder: Path, data_dir: Path) -> Path:
    """Copies a prepared dataset with `coco` or `voc` features to DATA_DIR/NAME/CONFIG/VERSION.

    An existing target is not changed.

    Raises:
      DataError: the folder is not a TFRecord dataset, a file is missing or broken, or data_dir
        already contains this dataset.
    """
    builder = open_builder(folder, "tfrecord")
    if file_adapters.FileFormat.ARRAY_RECORD in builder.info.available_file_formats():
        what = "already exists as ArrayRecord"
        raise DataError("prepared data", folder, "", what, "set data.root to it")
    target = data_dir / builder.info.full_name
    if target.resolve() == folder.resolve():
        fix = "use another --data_dir; you can delete the old folder afterwards"
        raise DataError("data_dir", data_dir, "", "already contains the TFRecord dataset", fix)

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


def _convert_file(source: Path, target: Path, length: int, progress: tqdm) -> None:
    if not source.is_file():
        raise DataError("missing file", source, "", "does not exist", "copy the dataset again")
    count = 0

    def records() -> Iterator[tuple[int, bytes]]:
        nonlocal count
        for record in read_records(source):
            yield count, record.data
            count += 1
            progress.update()

    file_adapters.ArrayRecordFileAdapter.write_examples(target, records())
    if count != length:
        what = f"the file should hold {length} records"
        raise DataError("TFRecord", source, f"record {count}", what, "copy the dataset again")


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
