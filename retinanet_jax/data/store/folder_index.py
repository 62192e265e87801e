"""The index of a split that is read in place: its images and objects in a few flat arrays."""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Float, Int

from retinanet_jax.data import images as images_lib
from retinanet_jax.data.archives import FilePart
from retinanet_jax.data.data_errors import Report
from retinanet_jax.data.example_sources import Annotated
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.records import Annotation, Categories, ImageRecord
from retinanet_jax.data.store.cache_files import pack_names, read_arrays, unpack_names, write_arrays


@dataclasses.dataclass(frozen=True)
class FolderIndex:
    """n images with m objects; those of image i are rows ends[i - 1] .. ends[i].

    Attributes:
      names: names of the images, as annotated.
      paths: paths of their files.
      parts: (offset, size) in bytes of the images in these files; size -1 is the whole file.
      ids: ids of the images.
      sizes: (height, width) in pixels, after rotation.
      orientations: EXIF orientation by which the decoded pixels are rotated.
      ends: end of each image's rows of objects.
      object_ids, labels, boxes, areas, crowd: fields of the objects; boxes are x, y, width, height
        as annotated, in pixels.
      categories: categories of the dataset.
      report: what was skipped or changed.
      found: what the folder holds, as text for a person.
      key: a digest of the state of the folder and of the settings that this index belongs to.
      split: the split on disk, for a person: 'val', or 'held out of train'. It is not stored.
    """

    names: list[str]
    paths: list[str]
    parts: Int[np.ndarray, "n 2"]
    ids: Int[np.ndarray, " n"]
    sizes: Int[np.ndarray, "n 2"]
    orientations: Int[np.ndarray, " n"]
    ends: Int[np.ndarray, " n"]
    object_ids: Int[np.ndarray, " m"]
    labels: Int[np.ndarray, " m"]
    boxes: Float[np.ndarray, "m 4"]
    areas: Float[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]
    categories: Categories
    report: Report
    found: str
    key: str
    split: str = ""

    @classmethod
    def of(
        cls,
        records: Sequence[ImageRecord],
        categories: Categories,
        report: Report,
        found: str,
        key: str,
    ) -> "FolderIndex":
        """Returns the index of some images, in an order that depends on their file names alone."""
        records = sorted(records, key=lambda record: _order(record.file_name))
        objects = [a for record in records for a in record.annotations]
        return cls(
            names=[record.file_name for record in records],
            paths=[str(_file(record)) for record in records],
            parts=np.array([_part(record) for record in records], np.int64).reshape(-1, 2),
            ids=np.array([record.id for record in records], np.int64),
            sizes=np.array([(r.height, r.width) for r in records], np.int32).reshape(-1, 2),
            orientations=np.array([record.orientation for record in records], np.int8),
            ends=np.cumsum([len(record.annotations) for record in records], dtype=np.int64),
            object_ids=np.array([a.id for a in objects], np.int64),
            labels=np.array([a.label for a in objects], np.int32),
            boxes=np.array([a.bbox for a in objects], np.float64).reshape(-1, 4),
            areas=np.array([a.area for a in objects], np.float64),
            crowd=np.array([a.crowd for a in objects], bool),
            categories=categories,
            report=report,
            found=found,
            key=key,
        )

    def rows(self, number: int) -> slice:
        """Returns the objects of an image."""
        start = self.ends[number - 1] if number else 0
        return slice(int(start), int(self.ends[number]))

    def path(self, number: int) -> Path | FilePart:
        """Returns the file of an image, or the part of a file that is the image."""
        file, (offset, size) = Path(self.paths[number]), self.parts[number].tolist()
        return FilePart(file, offset, size) if size >= 0 else file

    def records(self) -> Iterator[ImageRecord]:
        """Yields the images as records."""
        for number, name in enumerate(self.names):
            height, width = self.sizes[number].tolist()
            yield ImageRecord(
                int(self.ids[number]),
                name,
                self.path(number),
                height,
                width,
                tuple(self._annotations(number)),
                int(self.orientations[number]),
            )

    def _annotations(self, number: int) -> Iterator[Annotation]:
        rows = self.rows(number)
        fields = (self.object_ids, self.labels, self.boxes, self.areas, self.crowd)
        columns = [field[rows].tolist() for field in fields]
        for object_id, label, box, area, crowd in zip(*columns, strict=True):
            category_id = self.categories.ids[label]
            yield Annotation(object_id, label, category_id, tuple(box), area, crowd)

    def count_boxes(self) -> dict[str, int]:
        """Returns the number of objects by class name."""
        counts = collections.Counter(self.labels.tolist())
        return {name: counts[label] for label, name in enumerate(self.categories.names)}

    def write(self, path: Path) -> None:
        """Keeps the index in a file."""
        lists = ("names", "paths")
        facts = {
            "key": self.key,
            "categories": self.categories.names,
            "ids": self.categories.ids,
            "report": self.report.to_json(),
            "found": self.found,
        }
        arrays = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        packed = {name: pack_names(getattr(self, name)) for name in lists}
        write_arrays(path, **arrays, **packed, facts=pack_names([json.dumps(facts)]))

    @classmethod
    def read(cls, path: Path, key: str) -> "FolderIndex | None":
        """Returns the index that a file stores for this state of the folder, or None."""
        arrays = read_arrays(path)
        if arrays is None:
            return None
        facts = json.loads(unpack_names(arrays.pop("facts"))[0])
        if facts["key"] != key:
            return None
        lists = {name: unpack_names(arrays.pop(name)) for name in ("names", "paths")}
        categories = Categories(tuple(facts["categories"]), tuple(facts["ids"]))
        report = Report.from_json(facts["report"])
        texts = {"found": facts["found"], "key": key}
        return cls(**lists, **arrays, **texts, categories=categories, report=report)


def _file(record: ImageRecord) -> Path:
    return record.path.file if isinstance(record.path, FilePart) else record.path


def _part(record: ImageRecord) -> tuple[int, int]:
    is_part = isinstance(record.path, FilePart)
    return (record.path.offset, record.path.size) if is_part else (0, -1)


def _order(file_name: str) -> tuple[bytes, str]:
    """Random, but the same on every machine: slices of a split are then fair samples."""
    name = PurePosixPath(file_name.replace("\\", "/")).name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8)
    return digest.digest(), file_name


class FolderSource:
    """Images of an index, each read from its file when it is asked for; see example_sources.Source.

    Safe to read from several threads.

    Raises:
      DataError: when an image is read whose file is missing or broken by now.
    """

    def __init__(self, index: FolderIndex, numbers: range):
        self._index, self._numbers = index, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Example:
        number = self._number(index)
        path = self._index.path(number)
        orientation = int(self._index.orientations[number])
        image = images_lib.decode(images_lib.read_file(path), str(path), orientation)
        return Example(image, *self.annotated(index)[:4], image_id=self.image_id(index))

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) in pixels, after turning, without decoding."""
        height, width = self._index.sizes[self._number(index)].tolist()
        return height, width

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of an image, without decoding; boxes are clipped to it."""
        size, rows = self.image_size(index), self._index.rows(self._number(index))
        xywh = self._index.boxes[rows]
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        boxes = np.clip(corners, 0, [size[1], size[0]] * 2).astype(np.float32)
        labels, crowd, areas = (
            getattr(self._index, field)[rows] for field in ("labels", "crowd", "areas")
        )
        return Annotated(boxes, labels, crowd, areas, size)

    def image_id(self, index: int) -> int:
        """Returns the id that detections of an image carry."""
        return int(self._index.ids[self._number(index)])

    def _number(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"no image {index} of {len(self)}")
        return self._numbers[index]
