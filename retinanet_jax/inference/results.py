"""The detections of one image: as arrays, drawn, and in formats for other tools."""

import dataclasses
import errno
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import ImageLike, read_image
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.annotation_files import voc_xml, yolo_labels
from retinanet_jax.inference.drawing import draw_boxes
from retinanet_jax.inference.selection import check_number, check_threshold, labels_of
from retinanet_jax.metrics.coco import to_coco_results


class Detection(NamedTuple):
    """One object: `box` is xyxy in pixels of the image."""

    box: np.ndarray
    score: float
    label: int
    name: str


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageDetections:
    """The detections of one image, by descending score.

    >>> found = detector("photo.jpg")                          # doctest: +SKIP
    >>> for box, score, label, name in found: ...              # doctest: +SKIP
    >>> found[found.scores > 0.5].plot("drawn.jpg")            # doctest: +SKIP

    Indexing with a number gives a Detection; with a slice, a mask or indices, an ImageDetections.

    Attributes:
      boxes: xyxy in pixels of the image as shown, rotated by its EXIF orientation.
      scores: probabilities of the classes, in [0, 1].
      labels: class indices, contiguous from 0.
      categories: all class names and category ids of the detector, by label.
      image: the image as it was passed to the detector. A file is read again when it is drawn, so
        results of many files do not keep pixels in memory.
      size: (height, width) of the image in pixels.
    """

    boxes: Float[np.ndarray, "d 4"]
    scores: Float[np.ndarray, " d"]
    labels: Int[np.ndarray, " d"]
    categories: Categories
    image: ImageLike
    size: tuple[int, int]

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each detection."""
        return tuple(self.categories.names[label] for label in self.labels)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        scores, labels = self.scores.tolist(), self.labels.tolist()
        return iter(map(Detection, self.boxes, scores, labels, self.names))

    def __getitem__(self, index: Any) -> "Detection | ImageDetections":
        if isinstance(index, int | np.integer):
            label = int(self.labels[index])
            name = self.categories.names[label]
            return Detection(self.boxes[index], float(self.scores[index]), label, name)
        kept = index if isinstance(index, slice) else _indices(index)
        parts = {name: getattr(self, name)[kept] for name in ("boxes", "scores", "labels")}
        return dataclasses.replace(self, **parts)

    def select(
        self,
        threshold: float | int | None = None,
        classes: Sequence[str] | None = None,
        max_detections: int | None = None,
    ) -> "ImageDetections":
        """Returns the best `max_detections` of some classes, with scores above a threshold.

        Raises:
          ConfigError: a class does not exist, or the threshold or number is invalid.
        """
        check_threshold(threshold)
        check_number(max_detections)
        kept = np.ones(len(self), bool)
        if threshold is not None:
            kept &= self.scores > threshold
        if classes is not None:
            kept &= np.isin(self.labels, labels_of(classes, self.categories))
        return self[np.flatnonzero(kept)[:max_detections]]

    def plot(self, path: str | Path | None = None, *, long_side: int | None = None) -> Image.Image:
        """Draws the image with boxes, class names and scores; with `path`, also saves it.

        Args:
          path: file to write; its suffix determines the format.
          long_side: pixels of the longer side; None: that of the image, but at least 480.

        Raises:
          DataError: the image's file is gone or has changed, or `path` cannot be written.
        """
        image = read_image(self.image)
        if image.shape[:2] != self.size:
            what = f"is {image.shape[:2]} (height, width), but was {self.size}"
            raise DataError("image", self.image, "", what, "run the detector on it again")
        drawn = Image.fromarray(
            draw_boxes(
                image,
                self.boxes,
                self.labels,
                self.categories.names,
                self.scores,
                long_side=long_side,
            )
        )
        if path is not None:
            save_image(drawn, Path(path))
        return drawn

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Returns COCO's results format: a dict per detection, with the dataset's category ids."""
        parts = self.boxes, self.scores, self.labels
        return to_coco_results(image_id, *parts, self.categories)

    def to_yolo(self) -> str:
        """Returns the text of a YOLO label file; see annotation_files.yolo_labels."""
        return yolo_labels(self.boxes, self.labels, self.size)

    def to_voc(self, file_name: str) -> str:
        """Returns the Pascal VOC XML of an image with this name; see annotation_files.voc_xml."""
        return voc_xml(self.boxes, self.names, self.size, file_name)

    def to_rows(self) -> list[dict[str, Any]]:
        """Returns one dict per detection: class, score, x1, y1, x2, y2."""
        corners = ("x1", "y1", "x2", "y2")
        return [
            {"class": name, "score": score, **dict(zip(corners, box.tolist(), strict=True))}
            for box, score, _, name in self
        ]

    def to_json(self) -> str:
        """Returns the dicts of `to_rows` as a JSON list."""
        return json.dumps(self.to_rows(), ensure_ascii=False)

    def to_pandas(self):
        """Returns a DataFrame with a row per detection: class, score, x1, y1, x2, y2.

        Raises:
          ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas: needs pandas; run pip install pandas") from error
        columns = ("class", "score", "x1", "y1", "x2", "y2")
        return pandas.DataFrame(self.to_rows(), columns=columns)

    def to_supervision(self):
        """Returns a supervision.Detections, for its trackers, zones and annotators.

        Raises:
          ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            fix = "run pip install supervision"
            raise ImportError(f"to_supervision: needs supervision; {fix}") from error
        return supervision.Detections(
            xyxy=self.boxes.reshape(-1, 4),
            confidence=self.scores,
            class_id=self.labels.astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def __repr__(self) -> str:
        shown = [f"{name} {score:.2f}" for _, score, _, name in self[:5]]
        more = [f"{len(self) - 5} more"] if len(self) > 5 else []
        height, width = self.size
        listed = f": {', '.join(shown + more)}" if shown else ""
        return f"ImageDetections({len(self)} in {height} x {width}{listed})"


def save_image(image: Image.Image, path: Path) -> None:
    """Writes an image in the format of the path's suffix.

    Raises:
      DataError: the file cannot be written, or its suffix is not that of an image format.
    """
    options = {"quality": 92} if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else {}
    try:
        image.save(path, **options)
    except (ValueError, OSError) as error:
        fix = "name a .jpg or .png file in an existing folder"
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some space"
            path.unlink(missing_ok=True)  # Pillow may leave the first part of it
        what = f"cannot be written ({getattr(error, 'strerror', None) or error})"
        raise DataError("image", path, "", what, fix) from error


def _indices(index: Any) -> np.ndarray:
    """A mask or indices as an array; an empty list selects nothing."""
    array = np.asarray(index)
    return array if array.size else array.astype(int)
