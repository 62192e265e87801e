"""Prepares datasets, once, as TFDS ArrayRecord datasets with the features of `coco/2017`.

A prepared dataset is a folder that TFDS reads (dataset_info.json, features.json, the records) with
files of our own beside them, which TFDS leaves alone:

    source.json               category names and ids, where it came from, what was skipped or
                              changed, the number of boxes of each class
    ground_truth_SPLIT.json   the annotations as given (float areas, crowds), for evaluation
    index_SPLIT.npz           ids and sizes of the images in the order of the records

It appears under its name only when it is complete (once.py).
"""

import collections
import contextlib
import functools
import hashlib
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
from retinanet_jax.data.formats.coco import read_annotations
from retinanet_jax.data.records import Categories, ImageRecord, write_instances
from retinanet_jax.data.store.array_record import SOURCE_FILE, TfdsSource, write_index
from retinanet_jax.data.store.complete_folder import prepare_once
from retinanet_jax.data.store.tfds_bridge import coco_features, make_builder, without_tensorflow

# Counts with the annotations in the fingerprint: raise it when what is written changes.
FORMAT_VERSION = "1.1.0"
_LOOK_AHEAD = 64  # images read ahead of TFDS, which encodes and writes on one thread


def prepare_folder(root: str | Path, split: str, cache_dir: str | Path, on_error: str) -> Path:
    """Prepares one split of a folder in COCO format, unless it is prepared already.

    The annotations are root/annotations/instances_SPLIT.json. The images are in root/images/SPLIT,
    root/SPLIT or root/images, the first of them that is a folder; `file_name` is relative to it.
    Every image is decoded, so that training never meets one that cannot be. The folder itself is
    only read. Changed annotations are another dataset; changed pixels under the same annotations
    are not noticed.

    Args:
      cache_dir: prepared datasets are kept here, named by split and fingerprint of annotations.
      on_error: 'strict' or 'skip', see `read_annotations`.

    Returns:
      The prepared folder.

    Raises:
      DataError: names the file, the entry's id, the field and the fix.
    """
    root, cache_dir = Path(root).expanduser(), Path(cache_dir).expanduser()
    path = annotation_file(root, split)
    image_dir = image_folder(root, split)
    prepared = prepared_folder(root, split, cache_dir, on_error)

    def write(data_dir: Path) -> None:
        annotations = read_annotations(path, image_dir, on_error)
        write_coco(
            data_dir,
            prepared.relative_to(cache_dir).parts,
            {split: annotations.images},
            annotations.categories,
            Guard(on_error, annotations.report),
            origin=str(path.resolve()),
        )

    return prepare_once(cache_dir, prepared, write)


def prepared_folder(root: str | Path, split: str, cache_dir: str | Path, on_error: str) -> Path:
    """Where `prepare_folder` prepares a split, or has done so."""
    root = Path(root).expanduser()
    path, image_dir = annotation_file(root, split), image_folder(root, split)
    status = path.stat()
    digest = hashlib.sha256(_file_digest(path, status.st_mtime_ns, status.st_size))
    for part in (str(path.resolve()), str(image_dir.resolve()), on_error, FORMAT_VERSION):
        digest.update(b"\0" + os.fsencode(part))
    name = f"{split}-{digest.hexdigest()[:16]}"
    return Path(cache_dir).expanduser() / "folder" / name / FORMAT_VERSION


@functools.lru_cache(maxsize=8)
def _file_digest(path: Path, mtime: int, size: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def annotation_file(root: Path, split: str) -> Path:
    """root/annotations/instances_SPLIT.json; DataError tells which splits are there."""
    if not root.is_dir():
        raise DataError("missing folder", root, "", "is not a folder", "set data.root to one")
    path = root / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        there = sorted(p.stem.removeprefix("instances_") for p in path.parent.glob("instances_*"))
        fix = (
            f"set data.train_split and data.eval_split to splits that are there: {', '.join(there)}"
        )
        if not there:
            fix = "write it in COCO's format: docs/your_data.md shows how, with an example"
        raise DataError("annotation file", path, "", "is not there", fix)
    return path


def image_folder(root: Path, split: str) -> Path:
    """The folder with the images of a split; DataError names the places looked in."""
    places = (root / "images" / split, root / split, root / "images")
    for place in places:
        if place.is_dir():
            return place
    what = f"none of {', '.join(map(str, places))} is a folder"
    raise DataError("missing folder", root, "", what, "put the images into one of them")


def write_coco(
    data_dir: Path,
    name: tuple[str, str, str],
    splits: dict[str, Iterable[ImageRecord]],
    categories: Categories,
    guard: Guard,
    *,
    origin: str,
) -> None:
    """Writes splits with the features of `coco/2017` to data_dir/NAME/CONFIG/VERSION.

    Records are ordered as TFDS orders them: by a hash of the file name and the split's name.

    Raises:
      DataError: an image cannot be decoded, and `guard` is strict; or no image of a split is left.
    """
    kept: dict[str, list[ImageRecord]] = {split: [] for split in splits}
    examples = {
        split: coco_examples(records, guard, kept[split]) for split, records in splits.items()
    }
    features = coco_features(categories.names)
    folder = write_tfds(data_dir, make_builder(*name, features, examples, f"From {origin}"))
    for split, records in kept.items():
        write_instances(folder / f"ground_truth_{split}.json", records, categories)
        write_index(TfdsSource(folder, split, folder))
    boxes = {split: _count_boxes(records, categories) for split, records in kept.items()}
    write_source(folder, categories, origin, guard.report, boxes)


def coco_examples(
    records: Iterable[ImageRecord], guard: Guard, kept: list[ImageRecord]
) -> Iterator[tuple[str, dict]]:
    """(key, example) pairs for `coco_features`; the images written are added to `kept`."""
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
    """The images in order of their ids, each with the file's bytes, which decode to its size.

    Raises:
      DataError: after the last: images that do not decode, and `guard` is strict; none is left.
    """
    records = sorted(records, key=lambda record: record.id)
    progress = tqdm(total=len(records), desc="checking and writing images", unit="image")
    left = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, progress:
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
    """Lets TFDS write a builder's splits as ArrayRecord; the folder it wrote to."""
    builder = builder_class(data_dir=os.fspath(data_dir), file_format="array_record")
    # TFDS announces a download on stdout and shows a bar for each step; one bar is enough.
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
    """An image file's bytes, and what decoding them changes."""
    data = images_lib.read_file(record.path)
    image = images_lib.decode(data, f"{record.path} (image id {record.id})")
    if image.shape[:2] != (record.height, record.width):
        what = f"decodes to {image.shape[:2]}, its header says {record.height, record.width}"
        raise DataError("undecodable image", record.path, "", what, "save it again")
    return data, ["animated, the first image taken"] if images_lib.is_animated(data) else []
