"""Datasets of the `datasets` library: an image and its objects in each row."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from retinanet_jax.data.annotations.annotation_fields import finite, short
from retinanet_jax.data.annotations.ignore_marks import is_ignored
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.example_checks import objects_problem
from retinanet_jax.data.example_sources import Annotated
from retinanet_jax.data.formats.imagefolder_objects import CLASS_FIELDS, object_entries
from retinanet_jax.data.from_function import dataset_of_source
from retinanet_jax.data.images import (
    decode,
    exif_orientation,
    image_size,
    read_file,
    turned_size,
)
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.records import Categories

BOX_FORMATS = ("xywh", "xyxy")


def from_huggingface(
    dataset: Any,
    *,
    image: str = "image",
    objects: str = "objects",
    box_format: str = "xywh",
    class_names: Sequence[str] | None = None,
    name: str = "huggingface",
) -> Dataset:
    """Returns a split of a `datasets` dataset (pip install retinanet_jax[datasets]) as a Dataset.

        from datasets import load_dataset
        train = from_huggingface(load_dataset("cppe-5", split="train"))

    Args:
      dataset: a `datasets.Dataset` with random access.
      image: name of the column of images, a `datasets.Image`.
      objects: name of the column of objects, with `bbox`, the class (`category`, `label` or
        similar), and perhaps `area` and marks such as `iscrowd`.
      box_format: 'xywh' (COCO's) or 'xyxy'; in pixels.
      class_names: names of numbered classes; None uses the feature `ClassLabel`, or the names that
        occur if classes are written by name.
      name: name for logs and messages.

    Raises:
      DataError: a column is missing or of another type, or the classes are numbers without names.
        Errors of single rows are raised when they are read.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f"box_format: {box_format!r} is not one of {', '.join(BOX_FORMATS)}")
    if isinstance(dataset, dict):
        what, fix = f"has the splits {', '.join(dataset)}", "pass one, such as dataset['train']"
        raise DataError("dataset", name, "", what, fix)
    if not hasattr(dataset, "__len__"):
        what, fix = "has no random access", "load it without streaming=True"
        raise DataError("dataset", name, "", what, fix)
    columns = dataset.features or {}
    for argument, column in (("image", image), ("objects", objects)):
        if column not in columns:
            what = f"has no column {column!r}, only {', '.join(columns)}"
            raise DataError("column", name, "", what, f"set {argument}= to one of these")
    if not hasattr(columns[image], "decode"):
        what = f"is {short(columns[image])}, not an Image"
        fix = "cast it: dataset.cast_column(column, datasets.Image())"
        raise DataError("column", name, image, what, fix)
    encoded = dataset.cast_column(image, type(columns[image])(decode=False))
    class_field = _class_field(columns[objects], name, objects)
    names = list(class_names or _label_names(columns[objects], class_field))
    source = HuggingFaceSource(encoded, image, objects, class_field, box_format, names, name)
    if not names:
        names.extend(source.occurring_names())
    categories = Categories(tuple(names), tuple(range(1, len(names) + 1)))
    return dataset_of_source(source, categories, name)


def _inner(feature: Any) -> Any:
    """The element of a feature that is a list, else the feature."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return feature[0] if isinstance(feature, list) and feature else feature


def _class_field(feature: Any, name: str, column: str) -> str:
    inner = _inner(feature)
    found = [f for f in CLASS_FIELDS if isinstance(inner, dict) and f in inner]
    if not isinstance(inner, dict) or "bbox" not in inner or not found:
        what, fix = f"is {short(inner)}", "use objects with bbox and category (or label, ...)"
        raise DataError("column", name, column, what, fix)
    return found[0]


def _label_names(feature: Any, class_field: str) -> list[str]:
    """The names of a ClassLabel; none for classes of another type."""
    return list(getattr(_inner(_inner(feature)[class_field]), "names", None) or [])


class HuggingFaceSource:
    """Rows of a dataset whose images are not decoded: {'bytes': ..., 'path': ...}."""

    def __init__(
        self,
        dataset: Any,
        image: str,
        objects: str,
        class_field: str,
        box_format: str,
        class_names: list[str],
        name: str,
    ):
        self._dataset, self._image, self._objects = dataset, image, objects
        self._class_field, self._box_format = class_field, box_format
        self._class_names, self._name = class_names, name
        self._known = functools.cache(self._read_annotated)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"no image {index} of {len(self)}")
        annotated = self._known(index)
        pixels = self._pixels(index)
        return Example(pixels, *annotated[:4], image_id=index)

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) in pixels, from the header of the image."""
        return self._known(index).size

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of an image, without decoding."""
        return self._known(index)

    def image_id(self, index: int) -> int:
        """Returns the number of the row."""
        return index

    def occurring_names(self) -> list[str]:
        """Returns the classes that occur, for classes that are written by name.

        Raises:
          DataError: they are numbers.
        """
        names = set()
        for index, value in enumerate(self._dataset.select_columns([self._objects])):
            entries = object_entries(value[self._objects] or [], Path(self._name), _row(index))
            names |= {entry.get(self._class_field) for entry in entries}
        if other := [label for label in names if not isinstance(label, str)]:
            what = f"has the class {short(other[0])}, a number without a name"
            raise DataError("class names", self._name, self._objects, what, "set class_names=")
        return sorted(names)

    def _bytes(self, index: int) -> bytes:
        value = self._dataset[index][self._image] or {}
        if value.get("bytes"):
            return value["bytes"]
        if not value.get("path"):
            raise DataError("missing image", self._name, _row(index), "has no image", "remove it")
        return read_file(Path(value["path"]))

    def _pixels(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        data = self._bytes(index)
        return decode(data, f"{self._name}: {_row(index)}", exif_orientation(data))

    def _read_annotated(self, index: int) -> Annotated:
        row, where = self._dataset[index], _row(index)
        data = self._bytes(index)
        stored = image_size(data, f"{self._name}: {where}")
        size = turned_size(stored, exif_orientation(data))  # as the library decodes it
        entries = object_entries(row[self._objects] or [], Path(self._name), where)
        boxes = np.array([self._corners(e, where) for e in entries], np.float32).reshape(-1, 4)
        labels = np.array([self._label(e, where) for e in entries], np.int32)
        crowd = np.array([is_ignored(e, self._name, where) for e in entries], bool)
        of_boxes = (boxes[:, 2:] - boxes[:, :2]).prod(1, dtype=np.float64)
        stated = [finite(entry.get("area")) for entry in entries]
        areas = [b if s is None else s for b, s in zip(of_boxes, stated, strict=True)]
        annotated = Annotated(boxes, labels, crowd, np.array(areas, np.float64), size)
        if (problem := objects_problem(annotated, size, len(self._class_names))) is not None:
            raise DataError("example", self._name, where, *problem)
        return annotated

    def _corners(self, entry: dict, where: str) -> list[float]:
        box = entry.get("bbox")
        numbers = [finite(value) for value in box] if isinstance(box, list | tuple) else []
        if len(numbers) != 4 or None in numbers:
            what, fix = f"bbox is {short(box)}", "write four numbers"
            raise DataError("bbox", self._name, where, what, fix)
        x, y, width, height = numbers
        return numbers if self._box_format == "xyxy" else [x, y, x + width, y + height]

    def _label(self, entry: dict, where: str) -> int:
        label = entry.get(self._class_field)
        if isinstance(label, str) and label in self._class_names:
            return self._class_names.index(label)
        if type(label) is int and 0 <= label < len(self._class_names):
            return label
        what = f"{self._class_field} is {short(label)}"
        fix = f"use one of {len(self._class_names)} classes, or set class_names="
        raise DataError("class", self._name, where, what, fix)


def _row(index: int) -> str:
    return f"row {index}"
