"""Reads a checkpoint file: its project, its arrays, and its class names if known."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet_jax.data.annotations.class_names import COCO_CATEGORIES
from retinanet_jax.runtime.download import file_sha256
from retinanet_jax.weights.locations import fetch
from retinanet_jax.weights.network import read_network
from retinanet_jax.weights.projects import Source, recognise
from retinanet_jax.weights.public_weights import PUBLIC_WEIGHTS, PublicWeights, find_weights
from retinanet_jax.weights.readers import read_checkpoint
from retinanet_jax.weights.torchvision import keep_classes, modern_keys
from retinanet_jax.weights.weights_error import WeightsError

TORCHVISION_COCO_CLASSES = 91
_DETECTRON2_ZOO = "Detectron2 Model Zoo"


class StateDict(NamedTuple):
    """The network in a checkpoint file, by its project's own keys.

    path: path of the file.
    arrays: in torch's layout.
    source: whose keys they are.
    public: the public weights that the file is, by its name in the table or its hash; or None.
    class_names: that the file holds, or that are known of public weights; () if unknown.
    notes: for the log.
    """

    path: Path
    arrays: dict[str, np.ndarray]
    source: Source
    public: PublicWeights | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def read_network_file(
    location: str | os.PathLike,
    cache_dir: str | os.PathLike | None = None,
    *,
    average: bool = False,
) -> StateDict:
    """The network of a checkpoint at a location, which is downloaded if needed.

    Raises:
      WeightsError: it cannot be read, or is of no known project.
    """
    path = fetch(location, cache_dir)
    contents = read_checkpoint(path, average=average)
    try:
        found, arrays, notes = recognise(
            contents.arrays, average=average and not contents.is_average
        )
        if found.name == "torchvision":
            arrays = modern_keys(arrays)
        public = find_weights(os.fspath(location)) or _find_by_hash(path)
        names = contents.class_names
        if (public and public.recipe) or contents.author == _DETECTRON2_ZOO:
            names = names or COCO_CATEGORIES.names
        notes = contents.notes + tuple(notes)
        return StateDict(path, arrays, found, public, names, notes)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def coco_channels(state: StateDict) -> StateDict:
    """torchvision's 91 COCO channels cut to the 80 categories; any other state as it is."""
    if (
        state.source.name != "torchvision"
        or state.class_names != COCO_CATEGORIES.names
        or read_network(state.arrays, state.source.key_of).num_classes != TORCHVISION_COCO_CLASSES
    ):
        return state
    return state._replace(arrays=keep_classes(state.arrays, COCO_CATEGORIES.ids))


def _find_by_hash(path: Path) -> PublicWeights | None:
    digest = file_sha256(path)
    known = (w for w in PUBLIC_WEIGHTS.values() if w.sha256 and digest.startswith(w.sha256))
    return next(known, None)
