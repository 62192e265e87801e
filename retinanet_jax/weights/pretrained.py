"""Pretrained weights as the starting point of a run: config.model.pretrained."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.config.recipes import RECIPES
from retinanet_jax.config.settings import Config
from retinanet_jax.data.records import Categories
from retinanet_jax.weights.conventions import (
    CONVENTIONS,
    PIXELS,
    check_conventions,
    differences,
    reordered,
    value_of,
)
from retinanet_jax.weights.keymap import Imported
from retinanet_jax.weights.network import read_backbone, read_network, refuse_deep_stem
from retinanet_jax.weights.network_file import StateDict, coco_channels, read_network_file
from retinanet_jax.weights.projects import BACKBONE, import_detector
from retinanet_jax.weights.public_weights import imagenet_weights
from retinanet_jax.weights.run_weights import choose_checkpoint, describe, read_variables
from retinanet_jax.weights.torchvision import backbone_from_torchvision
from retinanet_jax.weights.weights_error import WeightsError

IMAGENET = ("imagenet", "imagenet_v2")
_CLASS_OUTPUT = ("class_head", "output")
_RANDOM_START = "; --weights=none starts from random weights"


def load_pretrained(
    location: str,
    variables: Mapping[str, Any],
    config: Config,
    categories: Categories | None = None,
) -> Imported:
    """Fills an initialised network with what a checkpoint has of it.

    A backbone (torchvision's or timm's keys) fills the backbone. A RetinaNet of torchvision,
    detectron2 or MMDetection, or of a run of ours, fills all but a class output for other classes.
    What the checkpoint lacks stays random; `summary()` of the result lists it.

    Args:
        location: 'imagenet' or 'imagenet_v2', see public_weights.imagenet_weights; a name of public
            weights; a path, a URL or hf://owner/name/file; or the workdir of a run.
        variables: an initialised {'params', 'batch_stats'}.
        config: configuration; the sections model, anchors, pixels and data are read.
        categories: of the run; a class output for classes of other names is not taken. None: it is
            taken if its shape fits.

    Raises:
        WeightsError: the file is unreadable or another network, or it expects other pixels; names
            the flags to set.
    """
    folder = Path(location).expanduser()
    if folder.is_dir():
        return _from_run(folder, variables, config, categories)
    name = location
    if location in IMAGENET:
        name = imagenet_weights(location, config.model).name
    own_cache = config.data.cache_dir != DataConfig.cache_dir
    cache = Path(config.data.cache_dir).expanduser() if own_cache else None
    try:
        state = read_network_file(name, cache)
    except WeightsError as error:
        raise WeightsError(f"{error}{_RANDOM_START}") from error
    try:
        imported = _import(state, variables, config, categories)
    except WeightsError as error:
        raise WeightsError(f"{state.path}: {error}") from error
    chosen = (f"{location}: {name}",) if name != location else ()
    return dataclasses.replace(imported, notes=chosen + state.notes + imported.notes)


def _import(
    state: StateDict, variables: Mapping[str, Any], config: Config, categories: Categories | None
) -> Imported:
    _check_backbone(state, config)
    epsilon = float(config.model.norm_epsilon)
    if state.source is BACKBONE:
        if state.public:
            check_conventions({"pixels.order": state.public.pixels}, config, state.public.name)
        imported = backbone_from_torchvision(
            state.arrays, variables, norm_epsilon=epsilon, partial=True
        )
    else:
        state, notes = _fitted(state, config, categories)
        imported = import_detector(
            state.source, state.arrays, variables, norm_epsilon=epsilon, partial=True
        )
        imported = dataclasses.replace(imported, notes=tuple(notes))
    wrong = [line for line in imported.misshapen if " for backbone/" in line]
    if wrong:
        raise WeightsError(
            f"does not fit a {config.model.backbone}: {'; '.join(wrong[:3])}; set "
            "config.model.backbone to its backbone"
        )
    return imported


def _check_backbone(state: StateDict, config: Config) -> None:
    refuse_deep_stem(state.arrays, state.source.key_of)
    try:
        found = read_backbone(state.arrays, state.source.key_of)
    except WeightsError:
        return  # a part of one: what fits is taken
    if found != config.model.backbone:
        raise WeightsError(
            f"its backbone is a {found}; write --config.model.backbone={found} instead of "
            f"{config.model.backbone}"
        )


def _fitted(
    state: StateDict, config: Config, categories: Categories | None
) -> tuple[StateDict, list[str]]:
    """A detector's state with the class output and the order of anchors that the run needs."""
    public = state.public.recipe if state.public else ""
    recipe = RECIPES[public if public in state.source.recipes else state.source.recipes[0]]
    allowed = [RECIPES[name] for name in state.source.recipes] if not public else [recipe]
    for field in CONVENTIONS:
        if value_of(config, field) not in [other[field] for other in allowed]:
            check_conventions(recipe, config, f"a RetinaNet of {state.source.name}")
    notes = differences(recipe, config)
    if categories is None or state.class_names == categories.names:
        state = coco_channels(state)
    arrays = dict(state.arrays)
    if categories is not None and state.class_names and state.class_names != categories.names:
        for leaf in ("kernel", "bias"):
            arrays.pop(state.source.key_of((*_CLASS_OUTPUT, leaf)), None)
        notes.append("class output: starts anew, because its classes differ from this run's")
    theirs, ours = recipe["anchors.order"], config.anchors.order
    network = read_network(state.arrays, state.source.key_of)
    if theirs != ours and network.anchors_per_location == config.anchors.anchors_per_location:
        for head in ("class_head", "box_head"):
            for leaf in ("kernel", "bias"):
                key = state.source.key_of((head, "output", leaf))
                if key in arrays:
                    arrays[key] = reordered(arrays[key], 0, theirs, config.anchors)
        notes.append(f"anchors: outputs reordered from {theirs} to {ours}")
    return state._replace(arrays=arrays), notes


def _from_run(
    workdir: Path, variables: Mapping[str, Any], config: Config, categories: Categories | None
) -> Imported:
    """Every array of a run of ours that fits; new class outputs for other classes."""
    checkpoints, step, kind = choose_checkpoint(workdir)
    theirs, names = describe(checkpoints, step)
    recipe = {field: value_of(theirs, field) for field in (*CONVENTIONS, *PIXELS)}
    check_conventions(recipe, config, f"the network of {workdir}")
    if theirs.model.backbone != config.model.backbone:
        raise WeightsError(
            f"{workdir}: its backbone is a {theirs.model.backbone}; write "
            f"--config.model.backbone={theirs.model.backbone} instead of {config.model.backbone}"
        )
    other_classes = categories is not None and names.names != categories.names
    given = {
        tuple(entry.key for entry in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(read_variables(checkpoints, step))
    }
    taken, random = [], []
    same_anchors = theirs.anchors.order == config.anchors.order

    def choose(path, leaf):
        place = tuple(entry.key for entry in path)
        name, value = "/".join(place[1:]), given.get(place)
        fits = value is not None and value.shape == leaf.shape
        if not fits or (other_classes and place[1:3] == _CLASS_OUTPUT):
            random.append(name)
            return leaf
        taken.append(name)
        value = np.asarray(value, np.float32)
        if place[2] in ("output", "centerness") and not same_anchors:
            return reordered(value, -1, theirs.anchors.order, config.anchors)
        return value

    filled = jax.tree_util.tree_map_with_path(choose, dict(variables))
    if not taken:
        raise WeightsError(f"{workdir}: none of its arrays fits the network")
    notes = [f"{kind} checkpoint of {workdir}, step {step}"]
    notes += [
        "class output: starts anew, because its classes differ from this run's"
    ] * other_classes
    unused = tuple("/".join(place[1:]) for place in given if "/".join(place[1:]) not in taken)
    return Imported(filled, tuple(taken), tuple(random), unused, (), tuple(notes))
