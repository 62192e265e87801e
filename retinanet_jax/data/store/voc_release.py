"""Pascal VOC: its XML annotations into TFDS's `voc` features, and back to boxes.

VOC's corners are the first and the last pixel of an object, counted from 1. Records keep them so,
as TFDS's own `voc` does, and one reader serves both; it takes 1 from the upper left corner, which
makes them positions: x1 = xmin - 1 is where the first pixel begins, x2 = xmax where the last ends.

Objects marked difficult are kept. In an Example they are `crowd`: anchors on them are ignored, or
they are dropped, as MatchingConfig.crowd_ioa sets. mmdetection, which publishes a RetinaNet for
VOC, does the same; detectron2 trains on them as on any other, py-faster-rcnn drops them. Scoring
counts them neither as found nor as missed.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float, Int

from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats.class_names import VOC_CATEGORIES
from retinanet_jax.data.formats.voc import POSES, VocObject, read_image_set
from retinanet_jax.data.pipeline.batch import box_areas
from retinanet_jax.data.records import Annotation, Categories, ImageRecord
from retinanet_jax.data.store.array_record import (
    TfdsSource,
    label_array,
    pixel_boxes,
    write_index,
    xywh,
)
from retinanet_jax.data.store.builders import checked_images, write_source, write_tfds
from retinanet_jax.data.store.official_archives import Part, Release, prepare_release
from retinanet_jax.data.store.tfds_bridge import make_builder


def _image_set(year: str, name: str, archive: str) -> tuple[Part, ...]:
    place = f"VOC{year}/ImageSets/Main/{name}.txt"
    return (Part((f"VOCdevkit/{place}", place), archive),)


RELEASES = {
    "2007": Release(
        ("voc", "2007", "5.0.0"),
        {
            "train": _image_set("2007", "train", "VOCtrainval_06-Nov-2007.tar"),
            "validation": _image_set("2007", "val", "VOCtrainval_06-Nov-2007.tar"),
            "test": _image_set("2007", "test", "VOCtest_06-Nov-2007.tar"),
        },
        usual=("train", "validation", "test"),
    ),
    "2012": Release(
        ("voc", "2012", "5.0.0"),
        {
            "train": _image_set("2012", "train", "VOCtrainval_11-May-2012.tar"),
            "validation": _image_set("2012", "val", "VOCtrainval_11-May-2012.tar"),
        },
        usual=("train", "validation"),
    ),
}


class VocSource(TfdsSource):
    """A split with TFDS's `voc` features, prepared here or by TFDS: `source[i]` is an Example.

    VOC has no numeric image ids: the digits of the file name are one (2008_000008 is 2008000008),
    unique over the years.
    """

    def id_of(self, record: dict) -> int:
        """The digits of the record's file name."""
        name = record["image/filename"].decode()
        digits = "".join(letter for letter in Path(name).stem if letter.isdecimal())
        if not digits:
            fix = "VOC's images are named by number"
            raise DataError("file name", self.folder, name, "has no digits", fix)
        return int(digits)

    def objects(self, record: dict, size: tuple[int, int]) -> tuple:
        """Boxes [m 4] xyxy in pixels, labels, difficult, areas of the boxes [m]."""
        objects = record["objects"]
        boxes = pixel_boxes(objects["bbox"], size)
        boxes[:, :2] = np.maximum(boxes[:, :2] - 1, 0)
        difficult = np.asarray(objects["is_difficult"], bool).reshape(-1)
        return boxes, label_array(objects["label"]), difficult, box_areas(boxes.astype(np.float64))

    def annotations(self, record: dict, size: tuple[int, int]) -> tuple[Annotation, ...]:
        """The objects of a record; ids count the objects of the image, `crowd` is difficult."""
        first = 1000 * self.id_of(record) + 1
        rows = zip(*self.objects(record, size), strict=True)
        return tuple(
            Annotation(i, int(label), int(label), xywh(box), float(area), bool(difficult))
            for i, (box, label, difficult, area) in enumerate(rows, first)
        )


def voc_objects(
    truth: dict, categories: Categories
) -> dict[int, tuple[Float[np.ndarray, "m 4"], Int[np.ndarray, " m"], Bool[np.ndarray, " m"]]]:
    """Boxes (xyxy), labels and difficult marks by image id, from a VOC dataset's ground truth.

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


def prepare_voc(
    year: str,
    root: Path,
    data_dir: Path,
    on_error: str,
    *,
    splits: tuple[str, ...] = (),
    download: bool = False,
) -> Path:
    """Prepares one year of VOC as DATA_DIR/voc/YEAR/5.0.0, with the splits of TFDS.

    The test split of 2012 is left out: its annotations are not public.

    Args:
      year: '2007' or '2012'.
      root: the folder with the archives (VOCtrainval_06-Nov-2007.tar ...), or with VOCdevkit/, or
        VOCdevkit itself.
      on_error: 'strict' raises errors; 'skip' leaves the object or image out.
      splits, download: see `prepare_release`.

    Returns:
      The prepared folder; what was skipped or changed is in its source.json.

    Raises:
      DataError: names the file, the field and the fix.
      DownloadError: a download failed.
    """
    release = RELEASES[year]
    guard = Guard(on_error, Report())

    def write(temporary: Path, found: dict[str, list[AnyPath]]) -> None:
        examples = {}
        for split, (image_set,) in found.items():
            examples[split] = voc_examples(read_image_set(image_set, guard), guard)
        builder = make_builder(*release.name, voc_features(), examples, f"From {root}")
        folder = write_tfds(temporary, builder)
        for split in found:
            write_index(VocSource(folder, split, folder))
        write_source(folder, VOC_CATEGORIES, str(root.resolve()), guard.report, {})

    return prepare_release(release, root, data_dir, write, splits=splits, download=download)


def voc_features() -> tfds.features.FeaturesDict:
    """The features of TFDS's `voc`."""
    label = tfds.features.ClassLabel(names=list(VOC_CATEGORIES.names))
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(
                {
                    "label": label,
                    "bbox": tfds.features.BBoxFeature(),
                    "pose": tfds.features.ClassLabel(names=list(POSES)),
                    "is_truncated": np.bool_,
                    "is_difficult": np.bool_,
                }
            ),
            "labels": tfds.features.Sequence(label),
            "labels_no_difficult": tfds.features.Sequence(label),
        }
    )


def voc_examples(
    images: dict[ImageRecord, list[VocObject]], guard: Guard
) -> Iterator[tuple[str, dict]]:
    """(key, example) pairs for `voc_features`."""
    for record, data in checked_images(images, guard):
        objects = images[record]
        yield (
            record.path.stem,
            {
                "image": io.BytesIO(data),
                "image/filename": record.file_name,
                "objects": [_encoded(o, record) for o in objects],
                "labels": sorted({o.label for o in objects}),
                "labels_no_difficult": sorted({o.label for o in objects if not o.difficult}),
            },
        )


def _encoded(voc_object: VocObject, record: ImageRecord) -> dict:
    corners = np.array(voc_object.corners) / ([record.width, record.height] * 2)
    x1, y1, x2, y2 = np.clip(corners, 0, 1)
    return {
        "label": voc_object.label,
        "bbox": tfds.features.BBox(y1, x1, y2, x2),
        "pose": voc_object.pose,
        "is_truncated": voc_object.truncated,
        "is_difficult": voc_object.difficult,
    }
