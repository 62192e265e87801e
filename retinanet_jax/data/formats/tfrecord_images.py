"""Images in TFRecord files, with the features of TensorFlow's Object Detection API.

Boxes are in fractions of the image. Masks and keypoints are not read. Encoded images are read
directly from the file.
"""

import collections
import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import relative_name
from retinanet_jax.data.annotations.ignore_marks import is_ignored, is_mark
from retinanet_jax.data.annotations.raw import RawImage, RawObject
from retinanet_jax.data.archives import FilePart
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.label_map import LabelMap
from retinanet_jax.data.record_files import Record, parse_example, read_records

REPEATED = "record with the same image and boxes as another, left out"
_OBJECT = "image/object/"
_CORNERS = ("bbox/xmin", "bbox/ymin", "bbox/xmax", "bbox/ymax")
_OBJECT_FEATURES = (*_CORNERS, "class/text", "class/label", "area")

Features = dict[str, Sequence]
Size = tuple[int, int] | None


class ImageReader:
    """Collects the images of records and notes on them; `guard` collects errors of boxes.

    Args:
      root: folder of the dataset.
      classes: label map; None uses the names in the records.
    """

    def __init__(self, root: Path, classes: LabelMap | None, guard: Guard):
        self.root, self.classes, self.guard = root, classes, guard
        self.images: list[RawImage] = []
        self.notes: list[tuple[str, str]] = []
        self.seen: dict[bytes, RawImage] = {}

    def add(self, record: Record, path: Path) -> None:
        """Reads a record of a file.

        Raises:
          DataError: the record has no image, or the image of another record but other boxes.
        """
        where = f"record {record.number}"
        features = _features(record.data, path, where)
        encoded = _image_bytes(features, path, where)
        part = FilePart(path, record.offset + _place(encoded, record.data), len(encoded))
        name = _text(features, "image/filename") or _text(features, "image/source_id")
        height, width = (_first(features, f"image/{side}", 0) for side in ("height", "width"))
        size = (height, width) if min(height, width) > 0 else None
        objects = tuple(self.objects(features, size, path, where))
        image = RawImage(name, part, path, objects, where, size, normalized=True)
        digest = hashlib.blake2b(encoded, digest_size=16).digest()
        other = self.seen.setdefault(digest, image)
        if other is image:
            self.images.append(image)
        elif other.objects == objects:
            self.notes.append((REPEATED, f"{path}: {where}"))
        else:
            what = f"has the image of {other.annotation_file.name}: {other.where}, but other boxes"
            fix = "write all boxes of an image into one record"
            raise DataError("image of another record", path, where, what, fix)

    def objects(
        self, features: Features, size: Size, path: Path, where: str
    ) -> Iterator[RawObject]:
        """Yields the objects of a record."""
        named = [name.removeprefix(_OBJECT) for name in features if name.startswith(_OBJECT)]
        marks = filter(is_mark, named)
        given = {n: features.get(f"{_OBJECT}{n}", ()) for n in (*_OBJECT_FEATURES, *marks)}
        columns = {name: values for name, values in given.items() if values or name in _CORNERS}
        number = len(columns["bbox/xmin"])
        for name, values in columns.items():
            if len(values) != number:
                what = f"image/object/{name} has {len(values)} values, bbox/xmin has {number}"
                raise DataError("number of values", path, where, what, "write one value per object")
        for place in range(number):
            with self.guard:
                one = {name: values[place] for name, values in columns.items()}
                yield self.object(one, size, path, where, f"object {place}")

    def object(
        self, one: dict[str, Any], size: Size, path: Path, where: str, entry: str
    ) -> RawObject:
        """Returns an object by its features."""
        name = self.class_name(one, path, f"{where}: {entry}")
        box = _box(one, size, path, f"{where}: {entry}")
        area = fields.area(one, path, f"{where}: {entry}")
        crowd = is_ignored(one, path, f"{where}: {entry}")
        return RawObject(name, box, entry, area, crowd)

    def class_name(self, one: dict[str, Any], path: Path, where: str) -> str:
        """Returns the name of an object's class, by the label map if there is one."""
        text, label = one.get("class/text", b""), one.get("class/label")
        text = text.decode("utf-8", "replace").strip() if isinstance(text, bytes) else str(text)
        if self.classes is not None and (text or label is not None):
            return self.classes.class_name(text, label, path, where)
        if not text and label is not None:
            what = f"has the class number {label} but no class text"
            raise DataError("class name", path, where, what, "add the label map (label_map.pbtxt)")
        return fields.class_name(text, None, path, where)

    def named_images(self) -> tuple[RawImage, ...]:
        """Returns the images; a name that is not unique gets the place of its record."""
        counts = collections.Counter(image.file_name for image in self.images)
        named = []
        for image in self.images:
            if not image.file_name or counts[image.file_name] > 1:
                place = relative_name(image.annotation_file, self.root), image.where
                image = image._replace(file_name="/".join([*place, image.file_name]).rstrip("/"))
            named.append(image)
        return tuple(named)


def has_classes_of(label_map: LabelMap, paths: Sequence[Path]) -> bool:
    """Returns whether a label map has the classes of the first record with objects."""
    with contextlib.suppress(DataError):  # which reading the record will raise
        for record in itertools.chain.from_iterable(map(read_records, paths)):
            features = _features(record.data, label_map.path, "")
            columns = (features.get(f"image/object/class/{name}", ()) for name in ("text", "label"))
            if objects := list(itertools.zip_longest(*columns)):
                return all(label_map.has(text or b"", label) for text, label in objects)
    return True


def _features(data: bytes, path: Path, where: str) -> Features:
    from google.protobuf.message import DecodeError  # imported here: few layouts need it

    try:
        return parse_example(data)
    except DecodeError as error:
        what, fix = "is not a tf.train.Example", "copy the file again, or write it again"
        raise DataError("record without features", path, where, what, fix) from error


def _image_bytes(features: Features, path: Path, where: str) -> bytes:
    encoded = _first(features, "image/encoded", b"")
    if not encoded:
        names = ", ".join(fields.short(name) for name in sorted(features)[:6]) or "an empty record"
        what = f"has no image/encoded, only {names}"
        if "image/encoded" in features:
            what = "has no image: image/encoded is empty"
        fix = "export the records with images, for the Object Detection API"
        raise DataError("record without an image", path, where, what, fix)
    return encoded


def _place(encoded: bytes, data: bytes) -> int:
    """Where the bytes of an image begin in a record; searching for all of them takes longer."""
    at = data.find(encoded[:64])
    while not data.startswith(encoded, at):
        at = data.find(encoded[:64], at + 1)
    return at


def _box(one: dict[str, Any], size: Size, path: Path, where: str) -> tuple[float, ...]:
    """x, y, width, height in shares of the image."""
    corners = [fields.finite(one[name]) for name in _CORNERS]
    if None in corners:
        what = f"box is {fields.short([one[name] for name in _CORNERS])}"
        fix = "write xmin, ymin, xmax, ymax, finite numbers"
        raise DataError("bbox", path, where, what, fix)
    height, width = size or (0, 0)
    x1, y1, x2, y2 = map(_exact, corners, (width, height, width, height))
    return x1, y1, x2 - x1, y2 - y1


def _exact(share: float, size: int) -> float:
    """The share before it was rounded to 32 bits, if that of a whole pixel of `size`."""
    whole = round(share * size)
    return whole / size if size and abs(share * size - whole) <= size * 2**-24 else share


def _text(features: Features, name: str) -> str:
    """A text of an image with / between folders; '' where there is none."""
    text = _first(features, name, b"").decode("utf-8", "replace")
    return text.replace("\0", "").replace("\\", "/").strip().strip("/")


def _first(features: Features, name: str, default: Any) -> Any:
    """The first value of a feature; the default where there is none of its type."""
    value = next(iter(features.get(name, ())), default)
    return value if isinstance(value, type(default)) else default
