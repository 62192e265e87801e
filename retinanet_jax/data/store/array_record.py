"""Reads prepared TFDS datasets record by record: encoded image, objects, sizes; no TensorFlow."""

import hashlib
import json
import logging
import os
import threading
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import json_format
from jaxtyping import Float, Int
from tqdm import tqdm

from retinanet_jax.data import images as images_lib
from retinanet_jax.data.data_errors import DataError, Report
from retinanet_jax.data.example_sources import Annotated
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.records import Annotation, Categories
from retinanet_jax.data.splits import parse_split, split_range
from retinanet_jax.data.store.tfds_record import parse_record
from retinanet_jax.runtime.user_folders import cache_folder

SOURCE_FILE = "source.json"

_log = logging.getLogger(__name__)


class RecordIndex(NamedTuple):
    """Ids and sizes (height, width) of the images, in the order of the records."""

    ids: Int[np.ndarray, " n"]
    sizes: Int[np.ndarray, "n 2"]


class TfdsSource:
    """A split of a prepared dataset with the features of `coco/2017`: `source[i]` is an Example.

    Args:
      folder: prepared folder, with dataset_info.json and ArrayRecord files.
      split: name of a split, or a slice such as 'validation[:32]'.
      cache_dir: folder for ids and sizes, which need a pass over all records.

    Safe to read from several threads.

    Raises:
      DataError: the folder is not an ArrayRecord dataset, or has no such split.
    """

    def __init__(self, folder: Path, split: str, cache_dir: str | Path):
        self.folder, self.split = Path(folder), split
        self._cache_dir = cache_folder(cache_dir)
        import tensorflow_datasets as tfds  # here: a folder read in place does not need it

        builder = open_builder(self.folder)
        self.name = parse_split(split)[0]
        if self.name not in builder.info.splits:
            fix = f"use one of {', '.join(builder.info.splits)}"
            raise DataError("split", folder, "", f"has no split {self.name!r}", fix)
        self.features = builder.info.features
        self._records = builder.as_data_source(
            split=self.name,
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
            file_format="array_record",
        )
        self._files = builder.info.splits[self.name].filepaths
        self._ends = np.cumsum(builder.info.splits[self.name].shard_lengths)
        self._range = split_range(split, len(self._records))
        self._index: RecordIndex | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> Example:
        record = self.record(index)
        name = record["image/filename"].decode(errors="replace")
        where = f"{self.folder}: {name}"
        image = images_lib.decode(record["image"], where, _orientation(record))
        return Example(image, *self.objects(record, image.shape[:2]), self.id_of(record))

    def record(self, index: int) -> dict:
        """Returns record `index`, see parse_record; its image is encoded.

        Raises:
          IndexError: there is no such record; negative indices are not supported.
          DataError: its file is missing, truncated or changed.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.folder} {self.split}: no record {index} of {len(self)}")
        place = self._range[index]
        try:
            data = self._records[place]
        # The errors of the reader have no common base class.
        except Exception as error:
            raise self._unreadable(place, str(error)) from error
        # Beyond the end of a truncated file the reader returns nothing, without an error.
        if not data:
            raise self._unreadable(place, "is missing: the file was truncated")
        return parse_record(data)

    def _unreadable(self, place: int, what: str) -> DataError:
        file = self._files[int(np.searchsorted(self._ends, place, side="right"))]
        fix = (
            "restore the file, or prepare the data again with `retinanet-jax prepare`; "
            "the same command resumes from the last checkpoint"
        )
        return DataError("prepared data", file, f"record {place} of the split", what, fix)

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) in pixels, without decoding."""
        height, width = self.index().sizes[index]
        return int(height), int(width)

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of image `index`, without decoding."""
        size = self.image_size(index)
        return Annotated(*self.objects(self.record(index), size), size)

    def image_id(self, index: int) -> int:
        """Returns the id that detections of image `index` carry."""
        return int(self.index().ids[index])

    def id_of(self, record: dict) -> int:
        """Returns the image id of a record."""
        return int(record["image/id"])

    def objects(self, record: dict, size: tuple[int, int]) -> tuple:
        """Returns boxes [m 4] xyxy in pixels, and labels, crowd and areas [m] of a record.

        Areas are the annotated ones, which TFDS rounds down to integers.
        """
        objects = record["objects"]
        crowd = np.asarray(objects["is_crowd"], bool).reshape(-1)
        areas = np.asarray(objects["area"], np.float64).reshape(-1)
        return pixel_boxes(objects["bbox"], size), label_array(objects["label"]), crowd, areas

    def annotations(self, record: dict, size: tuple[int, int]) -> tuple[Annotation, ...]:
        """Returns the objects of a record as annotations; labels are used as category ids."""
        rows = zip(record["objects"]["id"], *self.objects(record, size), strict=True)
        return tuple(
            Annotation(int(i), int(label), int(label), xywh(box), float(area), bool(crowd))
            for i, box, label, crowd, area in rows
        )

    def index(self) -> RecordIndex:
        """Returns ids and sizes of all images, in the order of the records.

        Stored with the records if this package prepared them; else read once from all records and
        kept in cache_dir.
        """
        with self._lock:
            if self._index is None:
                self._index = self._prepared_index() or cached_index(
                    self._cache_file(), self.read_index
                )
        return self._index

    def _prepared_index(self) -> RecordIndex | None:
        whole = load_index(index_file(self.folder, self.name))
        if whole is None or len(whole.ids) != len(self._records):
            return None
        part = slice(self._range.start, self._range.stop)
        return RecordIndex(whole.ids[part], whole.sizes[part])

    def _cache_file(self) -> Path:
        digest = hashlib.sha256((self.folder / "dataset_info.json").read_bytes())
        digest.update(f"{self.folder.resolve()}\0{self.split}\0{len(self)}".encode())
        return self._cache_dir / "index" / f"{digest.hexdigest()[:24]}.npz"

    def read_index(self) -> RecordIndex:
        """Returns ids and sizes, by a pass over the records."""
        ids, sizes = np.empty(len(self), np.int64), np.empty((len(self), 2), np.int32)
        numbers = range(len(self))
        for i in tqdm(numbers, f"{self.name}: reading sizes", delay=2, leave=False, disable=None):
            record = self.record(i)
            ids[i] = self.id_of(record)
            size = images_lib.image_size(record["image"], f"{self.folder}: record {i}")
            sizes[i] = images_lib.turned_size(size, _orientation(record))
        return RecordIndex(ids, sizes)


def _orientation(record: dict) -> int:
    """The EXIF orientation by which the decoded pixels are turned; COCO and VOC are as stored."""
    return int(record.get("image/orientation", 1))


def open_builder(folder: Path, file_format: str = "array_record") -> Any:
    """Returns the read-only tfds.core.DatasetBuilder of a prepared folder.

    Raises:
      DataError: the folder is not a prepared dataset, or its records have another format.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(os.fspath(folder))
    except (OSError, ValueError, KeyError, json_format.Error) as error:
        fix = "prepare it again with `retinanet-jax prepare`"
        raise DataError(
            "prepared data", folder, "", f"TFDS cannot read it ({error})", fix
        ) from error
    formats = {known.value for known in builder.info.available_file_formats()}
    if file_format not in formats:
        what = f"its records are {' and '.join(formats) or 'of no known format'}, not {file_format}"
        fix = "prepare it with file_format='array_record'"
        if "tfrecord" in formats:
            command = f"retinanet-jax prepare --convert={folder} --data_dir=NEW_FOLDER"
            fix = f"convert it with {command} and set data.root to NEW_FOLDER"
        raise DataError("prepared data", folder, "", what, fix)
    return builder


def pixel_boxes(bbox: list, size: tuple[int, int]) -> Float[np.ndarray, "m 4"]:
    """Returns TFDS boxes (relative ymin, xmin, ymax, xmax) as float32 xyxy in pixels."""
    y1, x1, y2, x2 = np.asarray(bbox, np.float64).reshape(-1, 4).T
    height, width = size
    return np.stack([x1 * width, y1 * height, x2 * width, y2 * height], axis=1).astype(np.float32)


def label_array(labels: list) -> Int[np.ndarray, " m"]:
    """Returns labels as an int32 array, which may be empty."""
    return np.asarray(labels, np.int32).reshape(-1)


def xywh(box: Float[np.ndarray, "4"]) -> tuple[float, float, float, float]:
    """Returns x, y, width, height of an xyxy box."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return x1, y1, x2 - x1, y2 - y1


class SourceFile(NamedTuple):
    """What this package stores with the records: categories, report, boxes by class."""

    categories: Categories
    report: Report
    boxes: dict[str, dict[str, int]]


def read_source_file(folder: Path) -> SourceFile | None:
    """Returns the source file of a folder that this package prepared; None for others."""
    path = folder / SOURCE_FILE
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    names, ids = content["categories"]["names"], content["categories"]["ids"]
    categories = Categories(tuple(names), tuple(ids))
    return SourceFile(categories, Report.from_json(content["report"]), content.get("boxes", {}))


def index_file(folder: Path, name: str) -> Path:
    """Returns the file with the index of a whole split, in a folder that this package prepared."""
    return folder / f"index_{name}.npz"


def write_index(source: TfdsSource) -> None:
    """Reads ids and sizes from the records of a whole split and stores them with the records."""
    with open(index_file(source.folder, source.name), "wb") as file:
        np.savez(file, **source.read_index()._asdict())


def load_index(path: Path) -> RecordIndex | None:
    """Returns the index in a file; None if the file is missing or broken."""
    try:
        with np.load(path) as stored:
            return RecordIndex(stored["ids"], stored["sizes"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def cached_index(path: Path, read: Callable[[], RecordIndex]) -> RecordIndex:
    """Returns the index in a file, or a new one, which is kept if the cache is writable."""
    index = load_index(path)
    if index is not None:
        return index
    index = read()
    temporary = path.with_name(f"{path.stem}.{uuid.uuid4()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, **index._asdict())
        temporary.replace(path)
    except OSError as error:
        _log.warning(
            "%s: cannot store image sizes (%s); they are read again at each start", path, error
        )
    return index
