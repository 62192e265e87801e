"""Detections of any number of images as CSV and as COCO JSON, written while they come in."""

import csv
import json
import shutil
import tempfile
from pathlib import Path

from retinanet_jax.data.records import Categories, category_entries
from retinanet_jax.inference.results import ImageDetections

COLUMNS = ("file", "class", "score", "x1", "y1", "x2", "y2", "frame")


class CsvWriter:
    """DIR/detections.csv: a line per detection; `frame` is empty where the file is no video.

    A context; what was added before an error is in the file.
    """

    def __init__(self, folder: Path, categories: Categories):
        self.path = folder / "detections.csv"

    def __enter__(self) -> "CsvWriter":
        self._file = self.path.open("w", encoding="utf-8", newline="")
        self._rows = csv.DictWriter(self._file, COLUMNS, restval="", lineterminator="\n")
        self._rows.writeheader()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, file: Path, found: ImageDetections, frame: int | None = None) -> None:
        """The detections of an image, or of a frame (from 0) of a video."""
        of = {"file": str(file)} if frame is None else {"file": str(file), "frame": frame}
        for row in found.to_rows():
            texts = {name: f"{row[name]:.2f}" for name in ("x1", "y1", "x2", "y2")}
            self._rows.writerow(of | row | texts | {"score": f"{row['score']:.4f}"})


class CocoWriter:
    """DIR/detections.json: a COCO dataset whose annotations have a `score`.

    As `instances_*.json` it has images, annotations and categories, so that tools for annotations
    open it; images are numbered from 1, and those of a video have a `frame`, from 0. A context;
    what was added before an error is in the file.
    """

    def __init__(self, folder: Path, categories: Categories):
        self.path = folder / "detections.json"
        self._categories = categories
        self._images = self._annotations = 0

    def __enter__(self) -> "CocoWriter":
        self._file = self.path.open("w", encoding="utf-8")
        # The images come behind the annotations, and there may be many.
        self._image_lines = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._file.write('{"annotations": [')
        return self

    def add(self, file: Path, found: ImageDetections, frame: int | None = None) -> None:
        """The detections of an image, or of a frame (from 0) of a video."""
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

    def __exit__(self, *_: object) -> None:
        self._file.write('\n],\n"images": [')
        self._image_lines.seek(0)
        shutil.copyfileobj(self._image_lines, self._file)
        self._image_lines.close()
        categories = json.dumps(category_entries(self._categories))
        self._file.write(f'\n],\n"categories": {categories}}}\n')
        self._file.close()


WRITERS = {"coco": CocoWriter, "csv": CsvWriter}
