"""Reads prepared Pascal VOC: records with TFDS's `voc` features, and its ground truth.

Records keep VOC's corners, the first and the last pixel of an object, counted from 1; see
voc_release.py.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.pipeline.batch import box_areas
from retinanet_jax.data.records import Annotation, Categories
from retinanet_jax.data.store.array_record import TfdsSource, label_array, pixel_boxes, xywh


class VocSource(TfdsSource):
    """A split with TFDS's `voc` features, prepared here or by TFDS: `source[i]` is an Example.

    VOC has no numeric image ids: the digits of the file name are one (2008_000008 is 2008000008),
    unique over the years.
    """

    def id_of(self, record: dict) -> int:
        """Returns the digits of the record's file name."""
        name = record["image/filename"].decode()
        digits = "".join(letter for letter in Path(name).stem if letter.isdecimal())
        if not digits:
            fix = "VOC's images are named by number"
            raise DataError("file name", self.folder, name, "has no digits", fix)
        return int(digits)

    def objects(self, record: dict, size: tuple[int, int]) -> tuple:
        """Returns boxes [m 4] xyxy in pixels, labels, difficult, areas of the boxes [m]."""
        objects = record["objects"]
        boxes = pixel_boxes(objects["bbox"], size)
        boxes[:, :2] = np.maximum(boxes[:, :2] - 1, 0)
        difficult = np.asarray(objects["is_difficult"], bool).reshape(-1)
        return boxes, label_array(objects["label"]), difficult, box_areas(boxes.astype(np.float64))

    def annotations(self, record: dict, size: tuple[int, int]) -> tuple[Annotation, ...]:
        """Returns the objects of a record; ids are counted per image, and `crowd` is difficult."""
        first = 1000 * self.id_of(record) + 1
        rows = zip(*self.objects(record, size), strict=True)
        return tuple(
            Annotation(i, int(label), int(label), xywh(box), float(area), bool(difficult))
            for i, (box, label, difficult, area) in enumerate(rows, first)
        )


def voc_objects(
    truth: dict, categories: Categories
) -> dict[int, tuple[Float[np.ndarray, "m 4"], Int[np.ndarray, " m"], Bool[np.ndarray, " m"]]]:
    """Returns boxes (xyxy), labels and difficult flags by image id, from VOC's ground truth.

    The boxes are positions: `voc_average_precision(..., inclusive_corners=False)` scores them by
    the rules of VOC's own kit.
    """
    rows: dict[int, list[dict]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        rows[annotation["image_id"]].append(annotation)
    labels = {category_id: label for label, category_id in enumerate(categories.ids)}
    found = {}
    for image_id, some in rows.items():
        boxes = np.array([a["bbox"] for a in some], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found[image_id] = (
            boxes,
            np.array([labels[a["category_id"]] for a in some], np.int32),
            np.array([a.get("difficult", a["iscrowd"]) for a in some], bool),
        )
    return found
