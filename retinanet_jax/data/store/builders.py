"""Writes datasets, once, as TFDS ArrayRecord datasets with the features of `coco/2017`.

A prepared dataset is a folder that TFDS reads (dataset_info.json, features.json, the records) with
further files, which TFDS ignores:

    source.json               category names and ids, origin, report of what was skipped or
                              changed, the number of boxes of each class
    ground_truth_SPLIT.json   the annotations as they were (float areas, crowds), for evaluation
    index_SPLIT.npz           ids and sizes of the images in the order of the records

It appears under its name only when it is complete (complete_folder.py).
"""

import collections
import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow_datasets as tfds
from tqdm import tqdm

from retinanet_jax.data import images as images_lib
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.records import Categories, ImageRecord, write_instances
from retinanet_jax.data.store.array_record import SOURCE_FILE, TfdsSource, write_index
from retinanet_jax.data.store.tfds_bridge import coco_features, make_builder, without_tensorflow
from retinanet_jax.runtime.cores import available_cores

_LOOK_AHEAD = 64  # images read ahead of TFDS, which encodes and writes on one thread


def write_coco(
    data_dir: Path,
    name: tuple[str, str, str],
    splits: dict[str, Iterable[ImageRecord]],
    categories: Categories,
    guard: Guard,
    *,
    origin: str,
    oriented: bool = False,
) -> None:
    """Writes splits with the features of `coco/2017` to data_dir/NAME/CONFIG/VERSION.

    Records are ordered as TFDS orders them: by a hash of the file name and the split's name.

    Args:
      oriented: adds the feature 'image/orientation', by which the decoded pixels are turned.

    Raises:
      DataError: an image cannot be decoded, and `guard` is strict; or no image of a split is left.
    """
    kept: dict[str, list[ImageRecord]] = {split: [] for split in splits}
    examples = {
        split: coco_examples(records, guard, kept[split], oriented)
        for split, records in splits.items()
    }
    features = coco_features(categories.names, oriented)
    folder = write_tfds(data_dir, make_builder(*name, features, examples, f"From {origin}"))
    for split, records in kept.items():
        write_instances(folder / f"ground_truth_{split}.json", records, categories)
        write_index(TfdsSource(folder, split, folder))
    boxes = {split: _count_boxes(records, categories) for split, records in kept.items()}
    write_source(folder, categories, origin, guard.report, boxes)


def coco_examples(
    records: Iterable[ImageRecord], guard: Guard, kept: list[ImageRecord], oriented: bool = False
) -> Iterator[tuple[str, dict]]:
    """Yields (key, example) pairs for `coco_features`; the images written are added to `kept`."""
    for record, data in checked_images(records, guard):
        kept.append(record)
        boxes = record.boxes() / ([record.width, record.height] * 2)
        rows = zip(record.annotations, boxes, strict=True)
        by_id = sorted(rows, key=lambda row: row[0].id)  # as TFDS's coco has them
        yield (
            record.file_name,
            {
                "image": io.BytesIO(data),
                "image/filename": record.file_name,
                "image/id": record.id,
                **({"image/orientation": record.orientation} if oriented else {}),
                "objects": [
                    {
                        "id": a.id,
                        "area": int(a.area),
                        "bbox": tfds.features.BBox(box[1], box[0], box[3], box[2]),
                        "label": a.label,
                        "is_crowd": a.crowd,
                    }
                    for a, box in by_id
                ],
            },
        )


def checked_images(
    records: Iterable[ImageRecord], guard: Guard
) -> Iterator[tuple[ImageRecord, bytes]]:
    """Yields the images in id order, each with its file's bytes, which decode to its size.

    Raises:
      DataError: at the end: there are images that do not decode, and `guard` is strict; or no
        image is left.
    """
    records = sorted(records, key=lambda record: record.id)
    progress = tqdm(total=len(records), desc="checking and writing images", unit="image")
    left = 0
    with ThreadPoolExecutor(min(8, available_cores())) as pool, progress:
        for start in range(0, len(records), _LOOK_AHEAD):
            some = records[start : start + _LOOK_AHEAD]
            for record, future in [(r, pool.submit(_read_checked, r)) for r in some]:
                progress.update()
                data = None
                with guard:
                    data, changes = future.result()
                    for change in changes:
                        guard.report.add(change, str(record.path))
                if data is not None:
                    left += 1
                    yield record, data
                    continue
                for annotation in record.annotations:
                    where = f"{record.path}: annotation id {annotation.id}"
                    guard.report.add("object of a skipped image", where)
    folder = records[0].path.parent if records else Path()
    guard.finish(folder)
    if not left:
        what = f"none of {len(records)} images can be decoded"
        fix = "copy them again (" + guard.report.summary().replace("\n", "; ") + ")"
        raise DataError("empty split", folder, "", what, fix)


def write_tfds(data_dir: Path, builder_class: type[tfds.core.GeneratorBasedBuilder]) -> Path:
    """Writes a builder's splits as ArrayRecord by TFDS; returns the folder."""
    builder = builder_class(data_dir=os.fspath(data_dir), file_format="array_record")
    # TFDS prints to stdout and shows a progress bar for each step; one bar is enough.
    tfds.disable_progress_bar()
    try:
        with without_tensorflow(), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    finally:
        tfds.enable_progress_bar()
    return Path(builder.data_dir)


def write_source(
    folder: Path,
    categories: Categories,
    origin: str,
    report: Report,
    boxes: dict[str, dict[str, int]],
) -> None:
    """Writes SOURCE_FILE; `boxes` are counts by split and class name."""
    content = {
        "categories": {"names": categories.names, "ids": categories.ids},
        "origin": origin,
        "report": report.to_json(),
        "boxes": boxes,
    }
    (folder / SOURCE_FILE).write_text(json.dumps(content), encoding="utf-8")


def _count_boxes(records: list[ImageRecord], categories: Categories) -> dict[str, int]:
    counts = collections.Counter(a.label for record in records for a in record.annotations)
    return {name: counts[label] for label, name in enumerate(categories.names)}


def _read_checked(record: ImageRecord) -> tuple[bytes, list[str]]:
    """An image file's bytes, and what decoding changes."""
    data = images_lib.read_file(record.path)
    where = f"{record.path} (image id {record.id})"
    image = images_lib.decode(data, where, record.orientation)
    if image.shape[:2] != (record.height, record.width):
        what = f"decodes to {image.shape[:2]}, its header says {record.height, record.width}"
        raise DataError("undecodable image", record.path, "", what, "save it again")
    return data, list(images_lib.changes_of(data))
