"""Selects some classes of a dataset and merges classes: config.data.classes."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.example_sources import Annotated, IdentifiedSource
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.records import Categories


def select_classes(dataset: Any, chosen: Sequence[str]) -> Any:
    """Returns a dataset.Dataset with only the chosen classes, in their order.

    Objects of other classes are left out, but all images are kept. A class keeps its category id,
    and a merged class gets the id of its target.

    Args:
      dataset: dataset.Dataset with all its classes.
      chosen: names; NAME=TARGET merges a class into another one, or into a new one. Empty: all.

    Raises:
      DataError: the dataset does not have a chosen class.
    """
    if not chosen:
        return dataset
    targets = _targets(dataset, chosen)
    old, names = dataset.categories, tuple(dict.fromkeys(targets.values()))
    ids = {name: old.ids[old.names.index(name)] for name in old.names if name in names}
    for name, target in targets.items():  # a new name takes the id of the first class in it
        ids.setdefault(target, old.ids[old.names.index(name)])
    new = Categories(names, tuple(ids[name] for name in names))
    labels = np.array([names.index(targets[n]) if n in targets else -1 for n in old.names])

    def truth() -> dict:
        content = dataset.ground_truth()
        to_id = {
            category_id: ids[targets[name]]
            for name, category_id in zip(old.names, old.ids, strict=True)
            if name in targets
        }
        annotations = [
            {**a, "category_id": to_id[a["category_id"]]}
            for a in content["annotations"]
            if a["category_id"] in to_id
        ]
        entries = {c["id"]: c for c in content["categories"]}
        categories = [
            {**entries.get(number, {}), "id": number, "name": name}
            for name, number in zip(new.names, new.ids, strict=True)
        ]
        return {**content, "annotations": annotations, "categories": categories}

    return dataclasses.replace(
        dataset,
        source=_Relabelled(dataset.source, labels),
        categories=new,
        ground_truth=functools.cache(truth),
    )


def _targets(dataset: Any, chosen: Sequence[str]) -> dict[str, str]:
    """From each chosen class to the class that it becomes."""
    known, targets = dataset.categories.names, {}
    for text in chosen:
        # A name may have '=' in it.
        name, _, target = (text, "", text) if text in known else text.partition("=")
        name, target = name.strip(), target.strip()
        if name not in known or not target:
            what = f"has no class {name!r}; its classes are {', '.join(known)}"
            fix = "list some of them in data.classes, as NAME or NAME=TARGET"
            raise DataError("class", dataset.name, "", what, fix)
        targets[name] = target
        if target in known:  # a merged class joins the objects of its target
            targets.setdefault(target, target)
    return targets


class _Relabelled:
    """A source with new labels; objects whose new label is -1 are left out."""

    def __init__(self, source: IdentifiedSource, labels: np.ndarray):
        self._source, self._labels = source, labels

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self._source, name)

    def __getitem__(self, index: int) -> Example:
        example = self._source[index]
        labels, kept = self._relabel(example.labels)
        boxes, crowd, areas = (x[kept] for x in (example.boxes, example.crowd, example.areas))
        return example._replace(boxes=boxes, labels=labels, crowd=crowd, areas=areas)

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._source.image_size(index)

    def image_id(self, index: int) -> int:
        """The id of the image in the whole source."""
        return self._source.image_id(index)

    def annotated(self, index: int) -> Annotated:
        """The objects of an image, without decoding."""
        found = self._source.annotated(index)
        labels, kept = self._relabel(found.labels)
        boxes, crowd, areas = (x[kept] for x in (found.boxes, found.crowd, found.areas))
        return found._replace(boxes=boxes, labels=labels, crowd=crowd, areas=areas)

    def _relabel(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        new = self._labels[labels].astype(np.int32)
        kept = new >= 0
        return new[kept], kept
