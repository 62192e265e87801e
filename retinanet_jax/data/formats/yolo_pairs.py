"""Matches images and label files of a YOLO dataset by file name."""

import collections
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations.file_names import explain_difference, fold
from retinanet_jax.data.annotations.folder_files import (
    Listing,
    list_folder,
    read_text,
    relative_name,
    stem_of,
    walk,
)
from retinanet_jax.data.annotations.split_names import find_split
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats.yolo_label_folder import label_folder
from retinanet_jax.data.formats.yolo_splits import YOLO_CLASS_FILES
from retinanet_jax.data.formats.yolo_yaml import YoloDataset, locate

REPEATED = "image listed twice, read once"


class Pair(NamedTuple):
    """Paths of an image and of its label file, one of which may be missing.

    second: a further label file of the image, which is not read: a.jpg.txt beside a.txt.
    similar: for a label file without image, a file that it may belong to, and what to do.
    differs: whether the names are similar, but not the same.
    """

    image: str | None
    labels: str | None
    similar: str = ""
    differs: bool = False
    second: str | None = None


def pairs_of_split(
    dataset: YoloDataset, split: str, guard: Guard
) -> tuple[list[Pair], list[tuple[str, str]]]:
    """Returns the images of a split with their label files, and notes on repeated images."""
    pairs: dict[Pair, None] = {}
    notes = []
    others = _labels_of_others(dataset, split)
    for place in dataset.splits[split]:
        for pair in find_pairs(dataset, place, guard):
            if pair.image is None and pair.labels in others:
                continue  # one folder has the labels of all splits
            if pair in pairs and pair.image:
                notes.append((REPEATED, f"{place}: {relative_name(pair.image, dataset.root)}"))
            pairs[pair] = None
    return list(pairs), notes


def _labels_of_others(dataset: YoloDataset, split: str) -> set[str | None]:
    """The label files of the images of other splits that are in the folders of a split's labels."""
    folders = set(map(_labels_of, dataset.splits[split]))
    places = [p for name, paths in dataset.splits.items() if name != split for p in paths]
    shared = [place for place in places if _labels_of(place) in folders]
    guard = Guard("skip", Report())
    return {p.labels for place in shared for p in find_pairs(dataset, place, guard) if p.image}


def _labels_of(place: Path) -> str:
    return label_folder(str(place))


def find_pairs(dataset: YoloDataset, place: Path, guard: Guard) -> Iterator[Pair]:
    """Yields the images of a folder, or those that a text file lists, each with its label file."""
    if place.is_dir():
        for listing in walk(place, dataset.apart):
            yield from _pairs_of_folder(listing.path, listing.images(), guard)
        return
    for folder, names in _listed(place, dataset.root).items():
        yield from _pairs_of_folder(folder, names, guard)


def splits_without_labels(dataset: YoloDataset) -> tuple[str, ...]:
    """Returns the splits in which no image has a label file.

    The training split is among them only if all splits are.
    """
    found = tuple(split for split in dataset.splits if not _has_label_files(dataset, split))
    train = find_split("train", list(dataset.splits))
    return found if len(found) == len(dataset.splits) else tuple(s for s in found if s != train)


def _has_label_files(dataset: YoloDataset, split: str) -> bool:
    guard = Guard("skip", Report())
    pairs = (p for place in dataset.splits[split] for p in find_pairs(dataset, place, guard))
    return any(pair.image and pair.labels for pair in pairs) or guard.report.total > 0


def places_outside(dataset: YoloDataset) -> list[Path]:
    """Returns what is read outside of the dataset's folder: folders of images or labels, and files.

    For a folder that a list names, these are its files but not its subfolders, since a line may
    lead anywhere.
    """
    places = [place for paths in dataset.splits.values() for place in paths]
    folders = [str(place) for place in places if place.is_dir()]
    lists = [place for place in places if not place.is_dir()]
    listed = [folder for place in lists for folder in _listed(place, dataset.root)]
    found = {Path(folder) for folder in (*folders, *map(label_folder, folders))} | set(lists)
    for folder in {*listed, *map(label_folder, listed)}:
        if not Path(folder).is_relative_to(dataset.root):
            found |= {Path(folder, name) for name in list_folder(folder).files}
    outside = {place for place in found if not place.is_relative_to(dataset.root)}
    return sorted(place for place in outside if outside.isdisjoint(place.parents))


def _listed(place: Path, root: Path) -> dict[str, list[str]]:
    """The names of the images that a text file lists, by their folder."""
    by_folder: dict[str, list[str]] = {}
    resolved: dict[str, str] = {}
    for line in read_text(place).splitlines():
        stated = line.strip().replace("\\", "/")
        if stated and "\0" not in stated:
            folder, name = os.path.split(stated)
            if folder not in resolved:
                # Lists name files from their own folder, the root or the folder that runs YOLO.
                found = locate(folder or ".", [place.parent, root])
                resolved[folder] = str(found or place.parent / folder)
            by_folder.setdefault(resolved[folder], []).append(name)
    return by_folder


def _pairs_of_folder(folder: str, names: list[str], guard: Guard) -> Iterator[Pair]:
    """Images of one folder with their label files, and label files without any image."""
    labels_in = label_folder(folder)
    present = {
        stem_of(name): name
        for name in list_folder(labels_in).with_suffix(".txt")
        if name.lower() not in YOLO_CLASS_FILES
    }
    listing = list_folder(folder)
    stems = collections.Counter(map(stem_of, listing.images()))
    orphans = sorted(present.keys() - stems.keys() - set(listing.images()))  # also a.jpg.txt
    similar = _similar_images(orphans, present, listing)
    counts = collections.Counter(map(fold, similar))
    pairs = {n[0]: stem for stem, n in similar.items() if len(n) == counts[fold(stem)] == 1}
    taken = set(itertools.chain(*similar.values()))
    for name in names:
        keys = dict.fromkeys((stem_of(name), name, pairs.get(name, "")))
        labels = [os.path.join(labels_in, present[key]) for key in keys if key in present]
        path = os.path.join(folder, name)
        if stem_of(name) in present and stems[stem_of(name)] > 1:
            with guard:
                what = f"shares the label file {present[stem_of(name)]} with another image"
                raise DataError("ambiguous image", path, "", what, "rename one of them")
            continue
        if labels or name not in taken:
            own, second = [*labels, None, None][:2]
            yield Pair(path, own, differs=name in pairs, second=second)
    for stem in sorted(set(orphans).difference(pairs.values())):
        if stem in similar or labels_in != folder:  # texts beside the images need not be labels
            image = similar.get(stem, [""])[0]
            why = image and explain_difference(stem + image.removeprefix(stem_of(image)), image)
            yield Pair(None, os.path.join(labels_in, present[stem]), why)


def _similar_images(
    orphans: list[str], present: dict[str, str], listing: Listing
) -> dict[str, list[str]]:
    """By the stems of label files without image: the images that they may belong to."""
    folded = collections.defaultdict(list)
    for name in listing.images() if orphans else ():
        if stem_of(name) not in present and name not in present:
            folded[fold(stem_of(name))].append(name)
    return {stem: folded[fold(stem)] for stem in orphans if fold(stem) in folded}
