"""Pascal VOC: its XML annotations into TFDS's `voc` features, and back to boxes.

VOC's corners are the first and the last pixel of an object, counted from 1. Records keep them, as
TFDS's `voc` does. The reader subtracts 1 from the upper left corner, so that corners are edges: x1
= xmin - 1 is where the first pixel begins, x2 = xmax where the last ends.

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

from retinanet_jax.data.annotations.class_names import VOC_CATEGORIES
from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import Guard, Report
from retinanet_jax.data.formats.voc_official import POSES, VocObject, read_image_set
from retinanet_jax.data.records import ImageRecord
from retinanet_jax.data.store.array_record import write_index
from retinanet_jax.data.store.builders import checked_images, write_source, write_tfds
from retinanet_jax.data.store.official_archives import Part, Release, prepare_release
from retinanet_jax.data.store.tfds_bridge import make_builder
from retinanet_jax.data.store.voc_source import VocSource


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
      on_error: 'strict' raises errors; 'skip' leaves out the object or image.
      splits, download: see `prepare_release`.

    Returns:
      The prepared folder; what was skipped or changed is in its source.json.

    Raises:
      DataError: the data is invalid; the message names the file, field and fix.
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
    """Returns the features of TFDS's `voc`."""
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
    """Yields (key, example) pairs for `voc_features`."""
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
