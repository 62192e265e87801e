"""Detections of any number of images as CSV and as COCO JSON, written as they come in."""

import abc
import contextlib
import csv
import errno
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.records import Categories, category_entries
from retinanet_jax.inference.results import ImageDetections

COLUMNS = ("file", "class", "score", "x1", "y1", "x2", "y2", "frame")
_LEAST_SPACE = 2**20  # bytes


def check_writable(folder: Path) -> None:
    """Checks, before the work, that files can be written to a folder, which may not exist yet.

    Raises:
      DataError: they cannot; the disk is full.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with writing_to(folder):
        with tempfile.TemporaryFile(dir=existing):
            pass
        if shutil.disk_usage(existing).free < _LEAST_SPACE:
            raise OSError(errno.ENOSPC, "No space left on device")


@contextlib.contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Turns an OSError into a DataError about the output at a place."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "free some space or name another disk" if full else "name a folder that you may write"
        what = f"cannot be written ({error.strerror or error})"
        raise DataError("output", place, "", what, fix) from error


class DetectionFile(abc.ABC):
    """A file that is written as detections come in; a context.

    After another error, the file has the detections before it. When writing fails, because the disk
    is full, a part may be missing: the file is deleted.
    """

    def __init__(self, path: Path, categories: Categories):
        self.path, self._categories = path, categories

    def __enter__(self):
        self._file = self.path.open("w", encoding="utf-8", newline="")
        self._begin(self._file)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        whole = kind is None or not issubclass(kind, OSError)
        try:
            with self._file:
                self._end(self._file)
        except OSError:
            whole = False
            raise
        finally:
            if not whole:
                self.path.unlink(missing_ok=True)

    @abc.abstractmethod
    def _begin(self, file: io.TextIOBase) -> None: ...

    @abc.abstractmethod
    def _end(self, file: io.TextIOBase) -> None: ...


class CsvWriter(DetectionFile):
    """DIR/detections.csv: a line per detection; `frame` is empty for images."""

    def __init__(self, folder: Path, categories: Categories):
        super().__init__(folder / "detections.csv", categories)

    def _begin(self, file: io.TextIOBase) -> None:
        self._rows = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        self._rows.writeheader()

    def _end(self, file: io.TextIOBase) -> None:
        """Its last row is the end."""

    def add(self, file: Path | str, found: ImageDetections, frame: int | None = None) -> None:
        """Adds the detections of an image, or of a frame (from 0) of a video."""
        of = {"file": str(file)} if frame is None else {"file": str(file), "frame": frame}
        for row in found.to_rows():
            texts = {name: f"{row[name]:.2f}" for name in ("x1", "y1", "x2", "y2")}
            self._rows.writerow(of | row | texts | {"score": f"{row['score']:.4f}"})


class CocoWriter(DetectionFile):
    """DIR/detections.coco.json: a COCO dataset whose annotations have a `score`.

    Like `instances_*.json` it has images, annotations and categories, so that annotation tools open
    it. Images are numbered from 1; frames of a video have a `frame`, from 0.
    """

    def __init__(self, folder: Path, categories: Categories):
        super().__init__(folder / "detections.coco.json", categories)
        self._images = self._annotations = 0

    def _begin(self, file: io.TextIOBase) -> None:
        # The images follow the annotations in the file, and there may be many.
        self._image_lines = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        file.write('{"annotations": [')

    def add(self, file: Path | str, found: ImageDetections, frame: int | None = None) -> None:
        """Adds the detections of an image, or of a frame (from 0) of a video."""
        self._images += 1
        height, width = found.size
        image = {"id": self._images, "file_name": str(file), "height": height, "width": width}
        if frame is not None:
            image["frame"] = frame
        self._image_lines.write(("," if self._images > 1 else "") + "\n" + json.dumps(image))
        for result in found.to_coco(self._images):
            self._annotations += 1
            area = result["bbox"][2] * result["bbox"][3]
            entry = {"id": self._annotations, **result, "area": area, "iscrowd": 0}
            comma = "," if self._annotations > 1 else ""
            self._file.write(comma + "\n" + json.dumps(entry))

    def _end(self, file: io.TextIOBase) -> None:
        with self._image_lines as lines:
            file.write('\n],\n"images": [')
            lines.seek(0)
            shutil.copyfileobj(lines, file)
        categories = json.dumps(category_entries(self._categories))
        file.write(f'\n],\n"categories": {categories}}}\n')


WRITERS = {"coco": CocoWriter, "csv": CsvWriter}
