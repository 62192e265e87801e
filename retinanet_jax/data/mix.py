"""Training on several datasets: categories matched by name, images repeated."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from retinanet_jax.data.data_errors import DataError, Report
from retinanet_jax.data.dataset import Dataset, load_dataset
from retinanet_jax.data.example_sources import Annotated, Concatenation, IdentifiedSource
from retinanet_jax.data.folder import sharing_reading
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.records import Categories
from retinanet_jax.data.repeat_factors import (
    class_shares,
    describe,
    labels_by_image,
    repeat_factors,
)
from retinanet_jax.data.splits import Part, parse_part
from retinanet_jax.data.tiled_source import training_tiles


def load_datasets(data_config: Any) -> tuple[Dataset, Dataset]:
    """Returns the training set and the evaluation set of a config.DataConfig."""
    with sharing_reading():
        train_set = load_training_set(data_config)
        return train_set, load_dataset(data_config, data_config.eval_split)


def load_training_set(data_config: Any) -> Dataset:
    """Returns the training set of a config.DataConfig: train_split and the datasets of `mix`.

    An epoch has each image of train_split once, and each image of another dataset as often as the
    factor of that dataset, with new augmentation each time. data_config.tile replaces images by
    tiles. With data_config.repeat_threshold, images of rare classes appear more often. The
    categories of train_split are used; those of the other datasets are matched by name.

    Raises:
      DataError: data is missing or invalid, or another dataset has an unknown category.
    """
    main = load_dataset(data_config, data_config.train_split)
    parts = [(main, 1)]
    for text in data_config.mix:
        part = parse_part(text)
        dataset = load_dataset(_config_of(part, data_config), part.split)
        parts.append((_relabelled(dataset, main, text), part.times))
    whole = main if len(parts) == 1 else mixed(parts)
    tiled = training_tiles(whole, data_config.tile, data_config.tile_overlap)
    return with_repeats(tiled, data_config.repeat_threshold)


def with_repeats(dataset: Dataset, threshold: float | None) -> Dataset:
    """Returns the dataset with images of rare classes repeated, or unchanged for None."""
    if threshold is None:
        return dataset
    labels = labels_by_image(dataset.source)
    shares = class_shares(labels, dataset.categories.num_classes)
    factors = repeat_factors(labels, shares, threshold)
    line = describe(factors, shares, dataset.categories)
    found = "\n".join(filter(None, [dataset.found, line]))
    return dataclasses.replace(dataset, repeats=factors, found=found)


def mixed(parts: Sequence[tuple[Dataset, int]]) -> Dataset:
    """Returns one dataset of several with the same categories, each repeated several times.

    For training only: image ids may repeat, and there is no ground truth.
    """
    source = Mixture([dataset for dataset, times in parts for _ in range(times)])
    name = " + ".join(
        dataset.name if times == 1 else f"{times} x {dataset.name}" for dataset, times in parts
    )
    datasets = [dataset for dataset, _ in parts]
    notes = "\n".join(dataset.notes for dataset in datasets if dataset.notes)
    report = Report.joined(dataset.report for dataset in datasets)
    found = "\n".join(dataset.found for dataset in datasets if dataset.found)
    fields = _no_ground_truth, name, notes, report, found
    return Dataset(source, datasets[0].categories, *fields)


class Mixture(Concatenation):
    """Several datasets one after the other; knows which one an image is from."""

    def __init__(self, datasets: Sequence[Dataset]):
        super().__init__([dataset.source for dataset in datasets])
        self._names = [dataset.name for dataset in datasets]

    def part_name(self, index: int) -> str:
        """Returns the name of the dataset that image `index` belongs to."""
        return self._names[self.find(index)[0]]


class Relabelled:
    """A source whose labels are replaced: label i by labels[i]."""

    def __init__(self, source: IdentifiedSource, labels: Sequence[int]):
        self._source, self._labels = source, np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = self._source[index]
        return example._replace(labels=self._labels[example.labels])

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) in pixels."""
        return self._source.image_size(index)

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of an image, without decoding."""
        annotated = self._source.annotated(index)
        return annotated._replace(labels=self._labels[annotated.labels])

    def image_id(self, index: int) -> int:
        """Returns the id of the image in its own dataset."""
        return self._source.image_id(index)


def _config_of(part: Part, data_config: Any) -> Any:
    """The settings that load a part alone."""
    return dataclasses.replace(
        data_config,
        name=part.kind,
        root=part.root,
        layout="auto",
        train_split=part.split,
        eval_split=part.split,
        annotations="",
        mix=(),
    )


def _relabelled(dataset: Dataset, main: Dataset, text: str) -> Dataset:
    labels = _labels_by_name(dataset.categories, main.categories)
    unknown = [name for name in dataset.categories.names if name not in labels]
    if unknown:
        what = (
            f"its categories {', '.join(map(repr, unknown[:5]))} are not among those of "
            f"{main.name}: {', '.join(main.categories.names[:20])}"
        )
        fix = "write the same names in both datasets, or remove this one from data.mix"
        raise DataError("categories", "data.mix", text, what, fix)
    source = Relabelled(dataset.source, [labels[name] for name in dataset.categories.names])
    return dataclasses.replace(dataset, source=source, categories=main.categories)


def _labels_by_name(theirs: Categories, ours: Categories) -> dict[str, int]:
    return {name: ours.names.index(name) for name in theirs.names if name in ours.names}


def _no_ground_truth() -> dict:
    raise ValueError("a mixture of datasets is for training only; evaluate a single dataset")
