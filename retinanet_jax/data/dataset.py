"""Datasets by name: images with boxes, the categories, and the ground truth to score against."""

import dataclasses
import difflib
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retinanet_jax.data.annotations.class_names import COCO_CATEGORIES, VOC_CATEGORIES
from retinanet_jax.data.annotations.split_names import resolve_splits
from retinanet_jax.data.class_selection import select_classes
from retinanet_jax.data.data_errors import DataError, Report
from retinanet_jax.data.example_sources import Concatenation, Slice, Source
from retinanet_jax.data.folder import load_index
from retinanet_jax.data.formats.coco_categories import read_categories
from retinanet_jax.data.formats.coco_json import read_json
from retinanet_jax.data.ground_truth import read_truth, rebuild, restrict
from retinanet_jax.data.records import Categories, instances
from retinanet_jax.data.shapes import ShapesSource
from retinanet_jax.data.splits import KINDS, parse_split, split_range
from retinanet_jax.data.store.array_record import TfdsSource, read_source_file
from retinanet_jax.data.store.find_prepared import find_prepared, stored_reports
from retinanet_jax.data.store.folder_index import FolderSource
from retinanet_jax.data.store.voc_source import VocSource
from retinanet_jax.runtime.user_folders import expand_user

_log = logging.getLogger(__name__)

# Which TFDS splits of which year a split of ours is; VOC's trainval is TFDS's train and validation.
_TRAINVAL_2007 = (("2007", "train"), ("2007", "validation"))
_TRAINVAL_2012 = (("2012", "train"), ("2012", "validation"))
_VOC_SPLITS = {
    "voc": {"train": _TRAINVAL_2007 + _TRAINVAL_2012, "test": (("2007", "test"),)},
    "voc2007": {
        "train": _TRAINVAL_2007[:1],
        "validation": _TRAINVAL_2007[1:],
        "trainval": _TRAINVAL_2007,
        "test": (("2007", "test"),),
    },
    "voc2012": {
        "train": _TRAINVAL_2012[:1],
        "validation": _TRAINVAL_2012[1:],
        "trainval": _TRAINVAL_2012,
    },
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split.

    Attributes:
      source: images of the split.
      categories: names and ids, in the order of the labels.
      ground_truth: function that returns COCO's instances JSON (images, annotations, categories;
        boxes x, y, width, height) of exactly the images of `source`, including those without
        objects. Difficult objects of Pascal VOC have `iscrowd` and `difficult` 1.
      name: name for logs.
      notes: what was skipped or changed when the dataset was read, and classes without a box, as
        text; '' if there is neither.
      report: counts of what was skipped or changed; for COCO and Pascal VOC, in all splits.
      found: what was found in a folder, as text: its layout, images, and boxes by class.
      split: name of the split, as it is called on disk.
      repeats: how often each image of a training set appears per epoch, on average; None: once.
    """

    source: Source
    categories: Categories
    ground_truth: Callable[[], dict]
    name: str
    notes: str = ""
    report: Report = dataclasses.field(default_factory=Report)
    found: str = ""
    split: str = ""
    repeats: np.ndarray | None = dataclasses.field(default=None, compare=False)

    @property
    def epoch_size(self) -> int:
        """The number of images of an epoch; with `repeats`, on average."""
        return len(self.source) if self.repeats is None else round(float(self.repeats.sum()))


def load_dataset(data_config: Any, split: str) -> Dataset:
    """Returns the dataset that `data_config` (config.DataConfig) names.

    shapes: 'train' or 'validation', drawn on the fly. folder: the splits on disk, or a part of the
    training split held out for validation (see data/folder.py). coco and coco2014: the splits of
    TFDS `coco/2017` and `coco/2014`. voc: 'train' (trainval of 2007 and 2012) or 'test' (2007).
    voc2007 and voc2012: the splits of TFDS `voc/2007` and `voc/2012`, and 'trainval'. Slices such
    as 'train[:90%]' or 'validation[:32]' count in the order of the records.

    Raises:
      DataError: data is missing or invalid; the message names the place and the fix.
    """
    parse_split(split)
    if data_config.name not in LOADERS:
        raise ValueError(f"data.name: {data_config.name!r} is not one of {', '.join(LOADERS)}")
    dataset = LOADERS[data_config.name](data_config, split)
    dataset = dataclasses.replace(dataset, split=dataset.split or split)
    return select_classes(dataset, data_config.classes)


def add_dataset(name: str, load: Callable[[Any, str], Dataset]) -> None:
    """Registers a dataset as a `data.name` and as a kind of `data.mix`.

    Args:
      name: name of letters, digits and _.
      load: function of (config.DataConfig, split), where the split may be a slice.
    """
    if name not in KINDS:
        KINDS.append(name)
    LOADERS[name] = load


def _shapes(data_config: Any, split: str) -> Dataset:
    settings, name = data_config.shapes, parse_split(split)[0]
    # Streams with different seeds have different images.
    streams = {"train": (settings.num_train, 0), "validation": (settings.num_eval, 1)}
    if name not in streams:
        raise DataError("split", "shapes", "", f"has no split {name!r}", "use train or validation")
    num_images, stream = streams[name]
    whole = ShapesSource(
        num_images=num_images,
        image_size=tuple(settings.image_size),
        seed=2 * settings.seed + stream,
        difficulty=settings,
    )
    source = Slice(whole, split_range(split, num_images))
    truth = functools.cache(lambda: restrict(whole.ground_truth(), source, "shapes"))
    return Dataset(source, whole.categories, truth, f"shapes {split}")


def _folder(data_config: Any, split: str) -> Dataset:
    root = expand_user(data_config.root)
    if (root / "dataset_info.json").is_file():
        return _prepared_folder(data_config, split, root)
    name = parse_split(split)[0]
    index = load_index(data_config, name)
    source = FolderSource(index, split_range(split, len(index.names)))
    notes = _notes(data_config, name, index.split, index.report, index.count_boxes())
    official = _official(data_config, name)

    def truth() -> dict:
        if official is not None:
            return read_truth(official, source, index.categories)
        whole = instances(index.records(), index.categories)
        return restrict(whole, source, data_config.root)

    found = split.replace(name, index.split, 1)
    fields = functools.cache(truth), f"{data_config.root} {found}", notes, index.report, index.found
    return Dataset(source, index.categories, *fields, split=found)


def _prepared_folder(data_config: Any, split: str, root: Path) -> Dataset:
    """A folder that `retinanet-jax prepare --dataset=folder` has written as ArrayRecord."""
    stored = read_source_file(root)
    if stored is None:
        what = "is not a folder prepared by retinanet-jax prepare --dataset=folder"
        raise DataError(
            "prepared data", root, "", what, "set data.name to the name of this dataset"
        )
    wanted, available = parse_split(split)[0], list(stored.boxes)
    train, evaluation = (
        parse_split(name)[0] for name in (data_config.train_split, data_config.eval_split)
    )
    names = resolve_splits(train, evaluation, available)
    name = {train: names.train, evaluation: names.evaluation}.get(wanted)
    if name is None:
        fix = f"use one of {', '.join(available)}"
        raise DataError("split", root, "", f"has no split {wanted!r}", fix)
    found = split.replace(wanted, name, 1)
    source = TfdsSource(root, found, data_config.cache_dir)
    notes = _notes(data_config, wanted, name, stored.report, stored.boxes[name])
    official = _official(data_config, wanted) or root / f"ground_truth_{name}.json"
    truth = functools.cache(lambda: read_truth(official, source, stored.categories))
    fields = truth, f"{root} {found}", notes, stored.report
    return Dataset(source, stored.categories, *fields, split=found)


def _notes(data_config: Any, split: str, found: str, report: Report, boxes: dict[str, int]) -> str:
    """Notes on a split of a folder, which are logged; `found` is its name on disk."""
    name = f"{data_config.root} {found}"
    notes = [report.notes(name)]
    if split == parse_split(data_config.train_split)[0]:
        notes.append(_classes_without_boxes(boxes, name))
    notes = "\n".join(filter(None, notes))
    if notes:
        _log.warning("%s", notes)
    return notes


def _classes_without_boxes(boxes: dict[str, int], name: str) -> str:
    learned = [class_name for class_name, count in boxes.items() if count]
    empty = [class_name for class_name, count in boxes.items() if not count]
    if not empty:
        return ""
    shown = []
    for class_name in empty[:10]:
        similar = difflib.get_close_matches(class_name, learned, n=1)
        shown.append(f"{class_name} (misspelled {similar[0]}?)" if similar else class_name)
    return (
        f"{name}: {len(empty)} of {len(boxes)} classes have no box and are not learned: "
        f"{', '.join(shown)}{', ...' if len(empty) > 10 else ''}; correct the names of classes "
        "that only other splits have, and remove categories that are not classes, such as a "
        "background or a group of classes"
    )


def _coco(data_config: Any, split: str) -> Dataset:
    year = "2014" if data_config.name == "coco2014" else "2017"
    folder = find_prepared(data_config.root, f"coco/{year}", data_config.name)
    source = TfdsSource(folder, split, data_config.cache_dir)
    name = parse_split(split)[0]
    official = _official(data_config, name)
    beside = folder / f"ground_truth_{name}.json"
    if official is None and beside.is_file():
        official = beside
    categories = _coco_categories(source, folder, official)

    def truth() -> dict:
        if official is not None:
            return read_truth(official, source, categories)
        _log.warning(
            "%s: no official annotations, so the ground truth is rebuilt from the records, whose "
            "areas are rounded down to integers: objects may move to another size group (APs, "
            "APm, APl); set data.annotations to instances_val%s.json",
            folder,
            year,
        )
        return rebuild([source], categories)

    name, counted = f"coco/{year} {split}", stored_reports([folder])
    return Dataset(source, categories, functools.cache(truth), name, *counted)


def _voc(data_config: Any, split: str) -> Dataset:
    name, splits = parse_split(split)[0], _VOC_SPLITS[data_config.name]
    if name not in splits:
        fix = f"use one of {', '.join(splits)}"
        raise DataError("split", data_config.name, "", f"has no split {name!r}", fix)
    parts = []
    for year, part in splits[name]:
        folder = find_prepared(data_config.root, f"voc/{year}", data_config.name)
        if folder.parent.name != year:
            what = f"is {folder.parent.name}, but {data_config.name} {name} needs voc/{year}"
            fix = "set data.root to the TFDS data directory, which contains voc/"
            raise DataError("prepared data", folder, "", what, fix)
        parts.append(VocSource(folder, part, data_config.cache_dir))
        _check_voc_names(parts[-1])
    whole = Concatenation(parts)
    source = Slice(whole, split_range(split, len(whole)))

    def truth() -> dict:
        content = rebuild(parts, VOC_CATEGORIES)
        for annotation in content["annotations"]:
            annotation["difficult"] = annotation["iscrowd"]
        return restrict(content, source, data_config.name)

    name, counted = f"{data_config.name} {split}", stored_reports([part.folder for part in parts])
    return Dataset(source, VOC_CATEGORIES, functools.cache(truth), name, *counted)


def _check_voc_names(source: VocSource) -> None:
    names = source.features["objects"]["label"].names
    if names and tuple(names) != VOC_CATEGORIES.names:
        what = f"its classes are not Pascal VOC's: {', '.join(names[:5])}"
        fix = "set data.name=folder for your own classes"
        raise DataError("categories", source.folder, "", what, fix)


def _official(data_config: Any, split: str) -> Path | None:
    """data.annotations, which is for the evaluation split, not for the training split."""
    evaluated = parse_split(data_config.eval_split)[0]
    trained = parse_split(data_config.train_split)[0]
    if not data_config.annotations or (split == trained and split != evaluated):
        return None
    return expand_user(data_config.annotations)


def _coco_categories(source: TfdsSource, folder: Path, official: Path | None) -> Categories:
    """Names from TFDS, ids by name: from the annotations if given, else COCO's own."""
    stored = read_source_file(folder)
    if stored is not None:
        return stored.categories
    names = source.features["objects"]["label"].names or COCO_CATEGORIES.names
    known = COCO_CATEGORIES
    if official is not None:
        known = read_categories(read_json(official)["categories"], official)
    unknown = sorted(set(names) - set(known.names))
    if unknown:
        what = f"has categories that {official or 'COCO'} does not know: {', '.join(unknown[:5])}"
        raise DataError(
            "categories", folder, "", what, "set data.annotations to the file of this dataset"
        )
    return Categories(tuple(names), tuple(known.ids[known.names.index(n)] for n in names))


LOADERS = {
    "shapes": _shapes,
    "folder": _folder,
    "coco": _coco,
    "coco2014": _coco,
    "voc": _voc,
    "voc2007": _voc,
    "voc2012": _voc,
}
