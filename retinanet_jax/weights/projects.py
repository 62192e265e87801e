"""Which project a state dict is of, by its keys, and how each project names its arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from retinanet_jax.weights.detectron2 import detector_from_detectron2, from_caffe2
from retinanet_jax.weights.detectron2 import detector_key as detectron2_key
from retinanet_jax.weights.keymap import Imported, Path
from retinanet_jax.weights.mmdetection import detector_from_mmdetection
from retinanet_jax.weights.mmdetection import detector_key as mmdetection_key
from retinanet_jax.weights.state_dicts import State, select_network, without_wrappers
from retinanet_jax.weights.torchvision import backbone_key, detector_from_torchvision
from retinanet_jax.weights.torchvision import detector_key as torchvision_key
from retinanet_jax.weights.weights_error import WeightsError, shown


class Source(NamedTuple):
    """One layout of keys.

    mark: keys of this layout, and of no other, begin with it.
    key_of: the key of a path in our tree, for a pyramid of P3 to P7.
    recipes: that its checkpoints may follow; the first is the default.
    """

    name: str
    mark: str
    key_of: Callable[[Path], str]
    recipes: tuple[str, ...]


SOURCES = (
    Source(
        "torchvision",
        "backbone.body.",
        torchvision_key,
        ("torchvision_v1", "torchvision_v1_coco", "torchvision_v2"),
    ),
    Source("detectron2", "backbone.bottom_up.", detectron2_key, ("detectron2",)),
    Source("mmdetection", "bbox_head.", mmdetection_key, ("mmdetection", "mmdetection_caffe")),
)
BACKBONE = Source("backbone", "layer1.", lambda path: backbone_key(path[1:]), ())


def recognise(
    state: Mapping[str, np.ndarray], *, average: bool = False
) -> tuple[Source, State, list[str]]:
    """The layout of a state dict's keys.

    Args:
      state: arrays by key; prefixes such as 'module.' and 'model.' are allowed.
      average: takes a moving average of the weights (EMA) instead of the weights.

    Returns:
      The layout, the arrays of the network by the project's own keys, and notes for the log.

    Raises:
      WeightsError: no known layout has such keys.
    """
    state = without_wrappers(state)
    if any(key.startswith("res2_0_branch2a") for key in state):
        return BACKBONE, from_caffe2(state), ["backbone of Caffe2 (MSRA): affine batch norm"]
    for source in (*SOURCES, BACKBONE):
        if found := select_network(state, source.mark, average):
            return source, *found
    begin = ", ".join(shown(key) for key in list(state)[:5])
    known = ", ".join(f"{source.name} ({source.mark}...)" for source in (*SOURCES, BACKBONE))
    raise WeightsError(f"its keys ({begin}, ...) do not belong to a known project: {known}")


def import_detector(
    source: Source,
    state: Mapping[str, np.ndarray],
    variables: Mapping[str, Any],
    *,
    norm_epsilon: float = 1e-5,
    partial: bool = False,
) -> Imported:
    """The variables of a detector, filled by the key map of `source`.

    Args:
      source: layout from `recognise`; not BACKBONE.
      state: arrays by key, in torch's layout.
      variables: {'params', 'batch_stats'} or their shapes.
      norm_epsilon: ModelConfig's, for batch norm that was folded into the convolutions.
      partial: keeps the variables that the checkpoint lacks; otherwise they are an error.

    Raises:
      WeightsError: as keymap.fill does.
    """
    if source.name == "detectron2":
        return detector_from_detectron2(state, variables, partial=partial)
    if source.name == "mmdetection":
        return detector_from_mmdetection(state, variables, partial=partial)
    return detector_from_torchvision(state, variables, norm_epsilon=norm_epsilon, partial=partial)
