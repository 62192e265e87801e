"""TFRecord files of TensorFlow's Object Detection API: a tf.train.Example for each image.

Its scripts, such as create_coco_tf_record.py, write them, and Roboflow, CVAT, Datumaro and VoTT;
whole or in shards (train.record-00000-of-00010), with the classes in a label map beside them.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from retinanet_jax.data.annotations.folder_files import list_folder, read_head, stem_of, suffix_of
from retinanet_jax.data.annotations.raw import Layout, RawSplit
from retinanet_jax.data.annotations.split_names import (
    is_split_name,
    same_split_names,
    split_of_file,
)
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.label_map import find_label_map, read_label_map
from retinanet_jax.data.formats.tfrecord_images import ImageReader, has_classes_of
from retinanet_jax.data.record_files import (
    RECORD_SUFFIXES,
    SHARD,
    is_record_file,
    read_records,
    without_shard,
)

_TOOL = "TFRecord of TensorFlow's Object Detection API"
FOREIGN = "label map with other classes in the folder around, not used"
_MAX_NAMED = 20  # sets of files whose names may be of splits; VoTT writes a file for each image


def find(root: Path) -> Layout | None:
    """Returns the layout of TFRecord files in a folder and its split folders, or of one file.

    One file stands for all of its shards.

    Raises:
      DataError: several label maps fit, and it is unclear which one is meant.
    """
    folder = root if root.is_dir() else root.parent
    inner = [folder / name for name in list_folder(folder).folders if is_split_name(name)]
    sets = [shards for place in (folder, *inner) for shards in _sets_in(place)]
    sets = [shards for shards in sets if root.is_dir() or root in shards]
    if not sets:
        return None
    stated = [_split_of(shards[0], folder, len(sets) <= _MAX_NAMED) for shards in sets]
    has_train = any("train" in same_split_names(name) for name in stated if name)
    splits: dict[str, list[Path]] = {}
    for shards, split in zip(sets, stated, strict=True):
        # Beside a training split, a file of another name is a split of its own: coco_testdev.
        name = stem_of(without_shard(shards[0].name)) if has_train else "train"
        splits.setdefault(split or name, []).extend(shards)
    maps = {}
    for split, (first, *_) in splits.items():
        stem = stem_of(without_shard(first.name))
        maps[split] = find_label_map((first.parent, folder, folder.parent), stem)
    outside = {path for path in maps.values() if path and path.parent == folder.parent}
    read = functools.partial(_read, folder, splits, maps)
    return Layout("tfrecord", _TOOL, tuple(splits), read, (folder, *outside))


def _sets_in(folder: Path) -> list[list[Path]]:
    """The TFRecord files of a folder, those of a set of shards together; not those of TFDS."""
    found: dict[tuple[str, str], list[Path]] = {}
    names = list_folder(folder).files
    for name in names if "dataset_info.json" not in names else ():
        if suffix_of(plain := without_shard(name)) in RECORD_SUFFIXES:
            shard = SHARD.search(name)
            found.setdefault((plain, shard[2] if shard else ""), []).append(folder / name)
    # Other files have the suffix .record, too.
    return [
        paths
        for (name, _), paths in found.items()
        if ".tfrecord" in name.lower() or is_record_file(read_head(paths[0], 12))
    ]


def _split_of(path: Path, folder: Path, is_named: bool) -> str | None:
    """The split in whose folder a file is, or else in its name."""
    if path.parent != folder:
        return path.parent.name
    return split_of_file(folder / without_shard(path.name), folder) if is_named else None


def _read(
    root: Path,
    splits: dict[str, list[Path]],
    maps: dict[str, Path | None],
    split: str,
    guard: Guard,
) -> RawSplit:
    """The images of a split with their objects; see raw.Layout."""
    paths, label_map = splits[split], maps[split]
    classes = read_label_map(label_map) if label_map else None
    notes = []
    if classes and not label_map.is_relative_to(root) and not has_classes_of(classes, paths):
        notes, classes = [(FOREIGN, str(label_map))], None
    reader = ImageReader(root, classes, guard)
    beside = {shard for path in paths for shard in _shards_beside(path)}
    for path in sorted(beside - set(paths)):
        with guard:
            raise DataError("missing shard", path, "", "does not exist", "copy this file, too")
    for path in paths:
        with guard:
            progress = {"delay": 2, "leave": False, "disable": None, "unit": "record"}
            for record in tqdm(read_records(path), f"reading {path.name}", **progress):
                with guard:
                    reader.add(record, path)
    names, ids = (tuple(classes.names.values()), tuple(classes.names)) if classes else (None, None)
    return RawSplit(reader.named_images(), names, ids, tuple(notes + reader.notes), "corners")


def _shards_beside(path: Path) -> Iterator[Path]:
    """The shards before and after one."""
    if match := SHARD.search(path.name):
        number, total = match.groups()
        for other in (int(number) - 1, int(number) + 1):
            if 0 <= other < int(total):
                shard = f"-{other:0{len(number)}}-of-{total}"
                yield path.with_name(SHARD.sub(shard, path.name))
