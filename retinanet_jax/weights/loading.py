"""A public checkpoint, whole: its weights and all that makes its project's detections of them."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from retinanet_jax.config.recipes import RECIPES, with_recipe
from retinanet_jax.config.settings import Config, default_config, from_config_dict
from retinanet_jax.core.resnet import ResNet
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.formats.class_names import COCO_CATEGORIES
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.download import file_sha256
from retinanet_jax.weights.keymap import Imported, is_batch_counter
from retinanet_jax.weights.locations import fetch
from retinanet_jax.weights.network import Network, read_backbone, read_network
from retinanet_jax.weights.projects import BACKBONE, Source, import_detector, recognise
from retinanet_jax.weights.readers import read_state_dict
from retinanet_jax.weights.torchvision import backbone_from_torchvision, keep_classes, modern_keys
from retinanet_jax.weights.weights_error import WeightsError

# retinanet_resnet50_fpn_coco-eeacb38b.pth, the one file that torchvision runs with epsilon 0.
_COCO_V1_SHA256 = "eeacb38b"
_COCO_V1_NAME = "retinanet_resnet50_fpn_coco"
_TORCHVISION_COCO_CLASSES = 91


class LoadedCheckpoint(NamedTuple):
    """What `load_checkpoint` finds.

    variables: {'params', 'batch_stats'}, numpy float32; of a backbone those of 'backbone' alone.
    config: the network, and the recipe by which the checkpoint detects.
    categories: names and ids by label; None for a backbone.
    report: where each array went; `report.summary()` is for the terminal.
    recipe: its name in retinanet_jax.config.recipes, or 'backbone'.
    """

    variables: dict[str, Any]
    config: Config
    categories: Categories | None
    report: Imported
    recipe: str


def load_checkpoint(
    location: str | os.PathLike, source: str | None = None, *, raw_labels: bool = False
) -> LoadedCheckpoint:
    """Reads a detector of torchvision, detectron2 or MMDetection, or a backbone.

    Every array of the file is used or named in the report as left out.

    Args:
      location: path, https URL or hf://owner/name/file.
      source: name of the recipe, where neither keys nor name tell: 'mmdetection_caffe' (as
        'mmdetection', but BGR and strides on 1x1 convolutions) and 'torchvision_v1_coco' (the
        published COCO weights of v1, which have epsilon 0), saved anew under another name. By
        default it is told from the keys, MMDetection's style from `caffe` in the file's name, and
        these published weights from the file's hash or name.
      raw_labels: for torchvision's 91 class channels, whose numbers are COCO's category ids: keeps
        all of them. By default the channels of the background and of the ten ids that COCO does not
        use are cut out and the others become COCO's 80 categories: in trained weights those
        channels never pass the score threshold, so that the detections are the same.

    Raises:
      WeightsError: the file cannot be read, is of no known project, or an array is missing,
        misshapen or left over; it names the file, the arrays and the fix.
    """
    path = fetch(location)
    state = read_state_dict(path)
    try:
        found = recognise(state)
        if found is BACKBONE:
            return _load_backbone(state, source, str(location))
        recipe = _choose_recipe(found, state, source, path)
        return _load_detector(found, state, recipe, str(location), raw_labels)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _choose_recipe(
    found: Source, state: Mapping[str, np.ndarray], wanted: str | None, path: Path
) -> str:
    if wanted is not None:
        if wanted not in found.recipes:
            raise WeightsError(
                f"source: {wanted!r} does not fit its keys, which are those of {found.name}; "
                f"write {' or '.join(found.recipes)}, or nothing"
            )
        return wanted
    if found.name == "mmdetection" and "caffe" in path.name:
        return "mmdetection_caffe"
    if found.name != "torchvision":
        return found.recipes[0]
    if "head.classification_head.conv.0.1.weight" in state:
        return "torchvision_v2"
    is_coco = path.name.startswith(_COCO_V1_NAME) or file_sha256(path).startswith(_COCO_V1_SHA256)
    return "torchvision_v1_coco" if is_coco else "torchvision_v1"


def _load_detector(
    found: Source, state: dict[str, np.ndarray], recipe: str, location: str, raw_labels: bool
) -> LoadedCheckpoint:
    categories, left_out = None, ()
    if found.name == "torchvision":
        state = modern_keys(state)
        if not raw_labels and _num_classes(found, state) == _TORCHVISION_COCO_CLASSES:
            state, left_out = keep_classes(state, COCO_CATEGORIES.ids), (_cut_channels(),)
            categories = COCO_CATEGORIES
    network = read_network(state, found.key_of)
    config = _config(network, recipe, location, _has_live_norm(found, state))
    model = build_model(config.model, network.num_classes, network.anchors_per_location)
    report = import_detector(
        found, state, _shapes(model), norm_epsilon=float(config.model.norm_epsilon)
    )
    report = dataclasses.replace(report, unused=report.unused + left_out)
    categories = categories or _categories(found, network.num_classes)
    return LoadedCheckpoint(report.variables, config, categories, report, recipe)


def _num_classes(found: Source, state: Mapping[str, np.ndarray]) -> int:
    return read_network(state, found.key_of).num_classes


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
            f"it has {network.anchors_per_location} anchors per location; {recipe} has "
            f"{typed.anchors.anchors_per_location}, and a file does not say which others"
        )
    return typed


def _categories(found: Source, num_classes: int) -> Categories:
    """COCO's where the number says so, else numbers for names: a state dict holds none."""
    if found.name == "torchvision" and num_classes == _TORCHVISION_COCO_CLASSES:
        names = dict(zip(COCO_CATEGORIES.ids, COCO_CATEGORIES.names, strict=True))
        unused = {0: "background"} | {i: f"unused {i}" for i in range(1, num_classes)}
        ids = tuple(range(num_classes))
        return Categories(tuple((unused | names)[i] for i in ids), ids)
    if num_classes == COCO_CATEGORIES.num_classes:
        return COCO_CATEGORIES
    return Categories(tuple(f"class {i}" for i in range(num_classes)), tuple(range(num_classes)))


def _cut_channels() -> str:
    unused = sorted(set(range(_TORCHVISION_COCO_CLASSES)) - set(COCO_CATEGORIES.ids))
    return f"classes {', '.join(map(str, unused))} of head.classification_head.cls_logits"


def _load_backbone(
    state: dict[str, np.ndarray], source: str | None, location: str
) -> LoadedCheckpoint:
    if source not in (None, BACKBONE.name):
        raise WeightsError(
            f"source: {source!r} is one of {', '.join(RECIPES)}, but its keys are a backbone's"
        )
    name = read_backbone(state, BACKBONE.key_of)
    shapes = {kind: {"backbone": tree} for kind, tree in _shapes(ResNet(name)).items()}
    report = backbone_from_torchvision(state, shapes)
    config = default_config()
    config.model.update(
        {"backbone": name, "norm": "frozen_batch", "frozen_stages": 2, "pretrained": location}
    )
    return LoadedCheckpoint(report.variables, from_config_dict(config), None, report, BACKBONE.name)


@functools.cache
def _shapes(model: nn.Module) -> dict[str, Any]:
    """The shapes of a model's variables."""
    images = jnp.zeros((1, 64, 64, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
