"""Detections as datasets, images included: in the YOLO format and as Pascal VOC XML.

Annotation tools open them for correction, and `retinanet-jax train --data` reads them.
"""

import abc
import os
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from PIL import Image

from retinanet_jax.cli.inputs import copy_suffix
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import read_image
from retinanet_jax.data.images import exif_orientation, read_file
from retinanet_jax.data.live_video import is_live
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.results import ImageDetections, save_image

# Suffixes that all readers of these formats know; other images become PNG.
SPLIT = "train"


def check_new(out: Path, formats: Sequence[str]) -> None:
    """Checks that no dataset of an earlier command, perhaps with corrections, is overwritten.

    Raises:
      DataError: `out` has such a dataset.
    """
    for name in formats:
        folder = out / name
        if name in DATASET_WRITERS and folder.is_dir() and any(folder.iterdir()):
            fix = "delete it, or name another folder for --out"
            raise DataError("output", folder, "", "exists and would be overwritten", fix)


class DatasetWriter(abc.ABC):
    """A folder with images and one annotation file for each; a context.

    All images are in one folder, `a/x.jpg` as `a_x.jpg`, frames of a video as `clip_000012.jpg`.
    Files are copied; images with an EXIF orientation are saved upright, so that all tools see the
    same pixels.

    Args:
      folder: folder of the dataset.
      categories: all classes, also those that are not found.
      root: a folder with all inputs, from which images get their names.
    """

    def __init__(self, folder: Path, categories: Categories, root: Path):
        self.path, self._categories, self._root = folder, categories, root
        self._taken: set[str] = set()
        self._images, self._annotations = self._folders()

    def __enter__(self):
        for folder in (self._images, self._annotations):
            folder.mkdir(parents=True, exist_ok=True)
        self._write_classes()
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 (each file is closed as it is written)
        pass

    def add(self, file: Path | str, found: ImageDetections, frame: int | None = None) -> None:
        """Adds an image, or a frame (from 0) of a video, a webcam or a URL, with its detections."""
        stem = self._free_stem(self._stem(file), frame)
        image = self._images / (stem + _suffix(Path(file), frame))
        try:
            _save_upright(Path(file), found, image)
            self._write_annotation(image, found)
        except OSError:  # such as a full disk: no half of a pair is left
            image.unlink(missing_ok=True)
            self._annotation(stem).unlink(missing_ok=True)
            raise

    def _stem(self, file: Path | str) -> str:
        if is_live(file):
            return re.sub(r"\W+", "_", str(file))
        inside = Path(os.path.abspath(file)).relative_to(self._root)
        return "_".join(inside.with_suffix("").parts)

    def _free_stem(self, stem: str, frame: int | None) -> str:
        """The stem, or the first free one of STEM_2, STEM_3, ...; also where case is ignored."""
        stem = stem if frame is None else f"{stem}_{frame:06d}"
        number, free = 2, stem
        while free.lower() in self._taken:
            number, free = number + 1, f"{stem}_{number}"
        self._taken.add(free.lower())
        return free

    @abc.abstractmethod
    def _folders(self) -> tuple[Path, Path]:
        """Returns the folders of the images and of the annotations."""

    @abc.abstractmethod
    def _write_classes(self) -> None:
        """Writes the list of the classes."""

    @abc.abstractmethod
    def _annotation(self, stem: str) -> Path:
        """The annotation file of an image."""

    @abc.abstractmethod
    def _write_annotation(self, image: Path, found: ImageDetections) -> None:
        """Writes it."""


class YoloWriter(DatasetWriter):
    """data.yaml, images/train/ and labels/train/, as Ultralytics reads them."""

    def _folders(self) -> tuple[Path, Path]:
        return self.path / "images" / SPLIT, self.path / "labels" / SPLIT

    def _write_classes(self) -> None:
        content = {SPLIT: f"images/{SPLIT}", "names": dict(enumerate(self._categories.names))}
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (self.path / "data.yaml").write_text(text, encoding="utf-8")

    def _annotation(self, stem: str) -> Path:
        return self._annotations / f"{stem}.txt"

    def _write_annotation(self, image: Path, found: ImageDetections) -> None:
        self._annotation(image.stem).write_text(found.to_yolo(), encoding="utf-8")


class VocWriter(DatasetWriter):
    """JPEGImages/, Annotations/, ImageSets/Main/train.txt, and the classes in labelmap.txt."""

    def _folders(self) -> tuple[Path, Path]:
        return self.path / "JPEGImages", self.path / "Annotations"

    def _write_classes(self) -> None:
        """CVAT's and Datumaro's list, or, for names that it has no place for, a plain one."""
        names = self._categories.names
        plain = any(":" in name or name.startswith("#") or name == "background" for name in names)
        lines = [name if plain else f"{name}:::" for name in names]
        path = self.path / ("classes.txt" if plain else "labelmap.txt")
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (self.path / "ImageSets/Main").mkdir(parents=True, exist_ok=True)

    def _annotation(self, stem: str) -> Path:
        return self._annotations / f"{stem}.xml"

    def _write_annotation(self, image: Path, found: ImageDetections) -> None:
        self._annotation(image.stem).write_text(found.to_voc(image.name), encoding="utf-8")
        with (self.path / f"ImageSets/Main/{SPLIT}.txt").open("a", encoding="utf-8") as file:
            file.write(f"{image.stem}\n")


def _suffix(file: Path, frame: int | None) -> str:
    if frame is not None:
        return ".jpg"
    return copy_suffix(file.suffix.lower())


def _save_upright(file: Path, found: ImageDetections, target: Path) -> None:
    if not isinstance(found.image, str | Path):  # a frame, or an image at a URL
        save_image(Image.fromarray(read_image(found.image)), target)
        return
    data = read_file(file)
    if file.suffix.lower() == target.suffix and exif_orientation(data) == 1:
        target.write_bytes(data)
    else:
        save_image(Image.fromarray(read_image(file)), target)


DATASET_WRITERS = {"yolo": YoloWriter, "voc": VocWriter}
