"""Loads public checkpoints: weights, config and categories that give the project's detections."""

import dataclasses
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from retinanet_jax.config.recipes import RECIPES, with_recipe
from retinanet_jax.config.settings import Config, default_config, from_config_dict
from retinanet_jax.core.initialization import variable_shapes
from retinanet_jax.core.resnet import ResNet
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.annotations.class_names import COCO_CATEGORIES
from retinanet_jax.data.records import Categories
from retinanet_jax.weights.keymap import Imported, is_batch_counter
from retinanet_jax.weights.network import Network, read_backbone, read_network
from retinanet_jax.weights.network_file import (
    TORCHVISION_COCO_CLASSES,
    StateDict,
    coco_channels,
    read_network_file,
)
from retinanet_jax.weights.projects import BACKBONE, Source, import_detector
from retinanet_jax.weights.torchvision import backbone_from_torchvision
from retinanet_jax.weights.weights_error import WeightsError

_log = logging.getLogger(__name__)
_shapes = functools.cache(variable_shapes)  # of a model


class LoadedCheckpoint(NamedTuple):
    """What `load_checkpoint` returns.

    variables: {'params', 'batch_stats'}, numpy float32; of a backbone those of 'backbone' alone.
    config: the network, and the recipe by which the checkpoint detects.
    categories: names and ids by label; None for a backbone.
    report: how each array was used; `report.summary()` is for the terminal.
    recipe: name of the recipe in retinanet_jax.config.recipes, or 'backbone'.
    """

    variables: dict[str, Any]
    config: Config
    categories: Categories | None
    report: Imported
    recipe: str


def load_checkpoint(
    location: str | os.PathLike,
    source: str | None = None,
    *,
    raw_labels: bool = False,
    class_names: str | Sequence[str] | None = None,
    average: bool = False,
) -> LoadedCheckpoint:
    """Reads a detector of torchvision, detectron2 or MMDetection, or a backbone.

    Every array of the network is used, or named in the report as left out.

    Args:
      location: name of public weights, path, https URL or hf://owner/name/file.
      source: name of the recipe, where the keys do not give it: 'mmdetection_caffe' (as
        'mmdetection', but BGR and strides on 1x1 convolutions), or 'torchvision_v1_coco' (the
        published COCO weights of v1, which have epsilon 0) for a copy of them in another file. By
        default it follows from the keys, MMDetection's style from `caffe` in the file's name, and
        the published weights from the file's hash.
      raw_labels: for torchvision's 91 class channels, whose numbers are COCO's category ids: keeps
        all of them. Without it the channels of the background and of the ten ids that COCO does not
        use are cut and the others become COCO's 80 categories. In trained weights those channels
        never pass the score threshold, so that the detections are the same.
      class_names: in the order of the labels; or 'coco'. By default those of public weights and
        those that MMDetection writes into the file; else numbers, for a state dict has no names.
      average: takes the moving average of the weights (EMA) that is stored with them.

    Raises:
      WeightsError: the file cannot be read, is of no known project, or an array is missing,
        misshapen or left over; it names the file, the arrays and the fix.
    """
    state = read_network_file(location, average=average)
    try:
        if state.source is BACKBONE:
            return _load_backbone(state, source, str(location))
        recipe = _choose_recipe(state, source)
        return _load_detector(state, recipe, str(location), raw_labels, class_names)
    except WeightsError as error:
        raise WeightsError(f"{state.path}: {error}") from error


def load_detector(
    location: str | os.PathLike, class_names: str | Sequence[str] | None = None
) -> LoadedCheckpoint:
    """Like load_checkpoint, for a detector only; raises WeightsError for a backbone."""
    loaded = load_checkpoint(location, class_names=class_names)
    if loaded.categories is None:
        raise WeightsError(
            f"{location}: is a backbone without heads, which cannot detect; train a detector from "
            f"it with --config.model.pretrained={location}"
        )
    for note in loaded.report.notes:
        _log.warning("%s: %s", location, note)
    return loaded


def _choose_recipe(state: StateDict, wanted: str | None) -> str:
    found = state.source
    if wanted is not None:
        if wanted not in found.recipes:
            raise WeightsError(
                f"source: {wanted!r} does not fit its keys, which belong to {found.name}; "
                f"write {' or '.join(found.recipes)}, or leave it out"
            )
        return wanted
    if state.public and state.public.recipe in found.recipes:
        return state.public.recipe
    if found.name == "mmdetection" and "caffe" in state.path.name:
        return "mmdetection_caffe"
    if "head.classification_head.conv.0.1.weight" in state.arrays:
        return "torchvision_v2"
    return found.recipes[0]


def _load_detector(
    state: StateDict,
    recipe: str,
    location: str,
    raw_labels: bool,
    class_names: str | Sequence[str] | None,
) -> LoadedCheckpoint:
    found, notes, whole = state.source, list(state.notes), state
    if class_names:
        given = COCO_CATEGORIES.names if class_names == "coco" else tuple(class_names)
        state = state._replace(class_names=given)
    if not raw_labels:
        state = coco_channels(state)
    cut = (_cut_channels(),) if state.arrays is not whole.arrays else ()
    network = read_network(state.arrays, found.key_of)
    config = _config(network, recipe, location, _has_live_norm(found, state.arrays))
    if raw_labels:
        categories = _raw_categories(network.num_classes)
    else:
        categories = _categories(state, network.num_classes, bool(class_names), notes)
    model = build_model(config.model, network.num_classes, network.anchors_per_location)
    report = import_detector(
        found, state.arrays, _shapes(model), norm_epsilon=float(config.model.norm_epsilon)
    )
    report = dataclasses.replace(report, unused=report.unused + cut, notes=tuple(notes))
    return LoadedCheckpoint(report.variables, config, categories, report, recipe)


def _has_live_norm(found: Source, state: Mapping[str, np.ndarray]) -> bool:
    """Whether torchvision built it with batch norm that trains: only that has counters.

    (MMDetection's norms have counters and are frozen; detectron2's are frozen and have none.)
    """
    return found.name == "torchvision" and any(map(is_batch_counter, state))


def _config(network: Network, recipe: str, location: str, has_live_norm: bool) -> Config:
    fields = {f"model__{name}": value for name, value in network.model.items()}
    # With the default precision of a GPU or TPU the detections would differ from the project's.
    fields["model__precision"] = "highest"
    if has_live_norm:
        fields |= {"model__norm": "batch", "model__frozen_stages": 0}
    config = with_recipe(default_config(), recipe, **fields, model__pretrained=location)
    typed = from_config_dict(config)
    if typed.anchors.anchors_per_location != network.anchors_per_location:
        raise WeightsError(
            f"it has {network.anchors_per_location} anchors per location instead of the "
            f"{typed.anchors.anchors_per_location} of {recipe}; the file does not say which ones"
        )
    return typed


def _categories(state: StateDict, count: int, given: bool, notes: list[str]) -> Categories:
    """Names where they are known, else numbers; adds a note in that case."""
    names = state.class_names
    if names == COCO_CATEGORIES.names and count == len(names):
        return COCO_CATEGORIES
    if given and count != len(names):
        raise WeightsError(
            f"class_names: {len(names)} names for the {count} classes of its class output"
        )
    if count != len(names):
        coco = " or 'coco'" if count in (80, TORCHVISION_COCO_CLASSES) else ""
        notes.append(
            f"class names: unknown, so classes have numbers; pass names{coco} to --class_names, or "
            "to Detector.from_pretrained(..., class_names=...)"
        )
        names = tuple(f"class {i}" for i in range(count))
    return Categories(names, tuple(range(count)))


def _raw_categories(num_classes: int) -> Categories:
    if num_classes != TORCHVISION_COCO_CLASSES:
        raise WeightsError(f"raw_labels: it has {num_classes} classes, not torchvision's 91")
    names = dict(zip(COCO_CATEGORIES.ids, COCO_CATEGORIES.names, strict=True))
    unused = {0: "background"} | {i: f"unused {i}" for i in range(1, num_classes)}
    ids = tuple(range(num_classes))
    return Categories(tuple((unused | names)[i] for i in ids), ids)


def _cut_channels() -> str:
    unused = sorted(set(range(TORCHVISION_COCO_CLASSES)) - set(COCO_CATEGORIES.ids))
    return f"classes {', '.join(map(str, unused))} of head.classification_head.cls_logits"


def _load_backbone(state: StateDict, source: str | None, location: str) -> LoadedCheckpoint:
    if source not in (None, BACKBONE.name):
        raise WeightsError(
            f"source: {source!r} is one of {', '.join(RECIPES)}, but its keys are a backbone's"
        )
    name = read_backbone(state.arrays, BACKBONE.key_of)
    shapes = {kind: {"backbone": tree} for kind, tree in _shapes(ResNet(name)).items()}
    report = backbone_from_torchvision(state.arrays, shapes)
    report = dataclasses.replace(report, notes=state.notes)
    config = default_config()
    config.model.update(
        {"backbone": name, "norm": "frozen_batch", "frozen_stages": 2, "pretrained": location}
    )
    return LoadedCheckpoint(report.variables, from_config_dict(config), None, report, BACKBONE.name)
