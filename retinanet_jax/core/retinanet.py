"""RetinaNet (Lin et al. 2017, arXiv 1708.02002): backbone, pyramid, heads; what of it trains."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from retinanet_jax.core.backbones import BACKBONES
from retinanet_jax.core.fpn import FPN
from retinanet_jax.core.heads import Head, prior_bias
from retinanet_jax.core.layers import NORM_KINDS, NUM_GROUPS, ArrayLike


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network. The defaults are MMDetection's ResNet-50, with the paper's ReLU before P7."""

    backbone: str = "resnet50"
    # Checkpoint to start from: path, URL or hf://owner/name/file. 'none': random weights.
    pretrained: str | None = None
    stride_on: str = "3x3"  # of bottlenecks: '3x3' torchvision, MMDetection; '1x1' detectron2
    norm: str = "frozen_batch"  # of the backbone: frozen_batch, batch (live) or group
    norm_epsilon: float | int = 1e-5  # of the backbone
    norm_momentum: float | int = 0.1  # of the backbone: share of a batch in the running statistics
    # Of pretrained weights: 0 none, 1 stem, 2 stem and layer1, ..., 5 the backbone; 'auto': 2.
    frozen_stages: int = 2
    backbone_levels: tuple[int, ...] = (3, 4, 5)  # consecutive C levels that enter the FPN
    max_level: int = 7  # highest P level
    extra_levels_from: str = "backbone"  # P6 from C5 ('backbone') or from P5 ('fpn')
    relu_before_p7: bool = True  # before every extra level but the first; MMDetection has none
    fpn_channels: int = 256
    head_depth: int = 4
    head_channels: int = 256
    head_norm: str = "none"  # none or group (torchvision v2)
    prior: float = 0.01  # probability of an object that the class output starts with
    output_std: float = 0.01  # of the weights that both outputs start with
    dtype: str = "float32"  # of the computation: float32 or bfloat16; parameters are always float32
    remat: str = (
        "none"  # what training computes twice to save memory: none, backbone, all (+ heads)
    )

    def __post_init__(self):
        # ml_collections and JSON hand over lists
        object.__setattr__(self, "backbone_levels", tuple(self.backbone_levels))
        self._check_choices()
        self._check_levels()
        self._check_numbers()

    def _check_choices(self):
        choices = {
            "backbone": tuple(BACKBONES),
            "stride_on": ("3x3", "1x1"),
            "norm": NORM_KINDS,
            "extra_levels_from": ("backbone", "fpn"),
            "head_norm": ("none", "group"),
            "dtype": ("float32", "bfloat16"),
            "remat": ("none", "backbone", "all"),
        }
        for field, allowed in choices.items():
            value = getattr(self, field)
            if value not in allowed:
                listed = ", ".join(map(str, allowed))
                raise ValueError(f"model.{field}: {value!r} is not one of {listed}")

        if not 0 <= self.frozen_stages <= 5:
            raise ValueError(
                f"model.frozen_stages: {self.frozen_stages} is invalid; write 'auto' or 0 to 5"
            )

    def _check_levels(self):
        levels = self.backbone_levels
        if not levels or levels != tuple(range(levels[0], levels[0] + len(levels))):
            raise ValueError(
                f"model.backbone_levels: {levels!r} are not consecutive; write e.g. (3, 4, 5)"
            )
        if levels[0] < 2 or levels[-1] > 5:
            raise ValueError(f"model.backbone_levels: {levels!r} are not within 2 to 5")
        if self.max_level < levels[-1]:
            raise ValueError(
                f"model.max_level: {self.max_level!r} is below the highest of backbone_levels; "
                f"write {levels[-1]} or more"
            )

    def _check_numbers(self):
        for field, least in (("fpn_channels", 1), ("head_channels", 1), ("head_depth", 0)):
            if getattr(self, field) < least:
                raise ValueError(
                    f"model.{field}: {getattr(self, field)!r} has to be {least} or more"
                )
        if self.head_norm == "group" and self.head_channels % NUM_GROUPS:
            raise ValueError(
                f"model.head_channels: {self.head_channels!r} is not a multiple of {NUM_GROUPS}, "
                "which head_norm 'group' needs"
            )
        if not 0 < self.prior < 1:
            raise ValueError(f"model.prior: {self.prior!r} is no probability; write e.g. 0.01")
        if self.norm_epsilon < 0:
            raise ValueError(f"model.norm_epsilon: {self.norm_epsilon!r} is negative; write 1e-5")
        if not 0 < self.norm_momentum <= 1:
            raise ValueError(
                f"model.norm_momentum: {self.norm_momentum!r} is not in (0, 1]; write 0.1"
            )
        if not self.output_std > 0:
            raise ValueError(f"model.output_std: {self.output_std!r} is not above 0; write 0.01")

    @property
    def levels(self) -> tuple[int, ...]:
        """All P levels, lowest first."""
        return tuple(range(self.backbone_levels[0], self.max_level + 1))


class Predictions(NamedTuple):
    """Raw outputs per level, lowest first, anchors in the order H, W, A; in the model's dtype."""

    class_logits: tuple[Float[Array, "b _ k"], ...]
    box_deltas: tuple[Float[Array, "b _ 4"], ...]


class RetinaNet(nn.Module):
    """Normalised images to Predictions.

    Variables: 'params' (float32) and, unless the norm is 'group', 'batch_stats'. With norm 'batch'
    a call with train=True has to make 'batch_stats' mutable: `apply(variables, images, train=True,
    mutable=["batch_stats"])`.
    """

    config: ModelConfig
    num_classes: int
    anchors_per_location: int

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.backbone = BACKBONES[config.backbone](config)
        self.fpn = FPN(
            levels=config.backbone_levels,
            max_level=config.max_level,
            channels=config.fpn_channels,
            extra_levels_from=config.extra_levels_from,
            relu_before_p7=config.relu_before_p7,
            dtype=dtype,
        )
        self.class_head = self._head(self.num_classes, prior_bias(config.prior))
        self.box_head = self._head(4, 0.0)

    def _head(self, values_per_anchor: int, output_bias: float) -> Head:
        kind = nn.remat(Head) if self.config.remat == "all" else Head
        return kind(
            anchors_per_location=self.anchors_per_location,
            values_per_anchor=values_per_anchor,
            depth=self.config.head_depth,
            channels=self.config.head_channels,
            norm=self.config.head_norm,
            output_bias=output_bias,
            output_std=self.config.output_std,
            dtype=jnp.dtype(self.config.dtype),
        )

    def __call__(self, images: Float[ArrayLike, "b h w 3"], train: bool) -> Predictions:
        pyramid = self.fpn(self.backbone(images, train))
        return Predictions(
            class_logits=tuple(self.class_head(x) for x in pyramid.values()),
            box_deltas=tuple(self.box_head(x) for x in pyramid.values()),
        )

    def features(
        self, images: Float[ArrayLike, "b h w 3"], train: bool = False
    ) -> dict[str, Array]:
        """The backbone's levels as 'C2', 'C3', ... and the pyramid's as 'P3', ..., each [b h w c].

        Call it by `apply(variables, images, method="features")`.
        """
        backbone = self.backbone(images, train)
        named = {f"C{level}": x for level, x in backbone.items()}
        return named | {f"P{level}": x for level, x in self.fpn(backbone).items()}


def build_model(config: ModelConfig, num_classes: int, anchors_per_location: int) -> RetinaNet:
    """The network for a config; ValueError where a count is not positive."""
    if num_classes < 1:
        raise ValueError(f"num_classes: {num_classes!r} has to be 1 or more")
    if anchors_per_location < 1:
        raise ValueError(f"anchors_per_location: {anchors_per_location!r} has to be 1 or more")
    return RetinaNet(config, num_classes, anchors_per_location)


def trainable_mask(params: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """The tree of params with True where the optimizer may move a leaf.

    False for the backbone's frozen stages and, with norm 'frozen_batch', for the affine of all its
    norms: just what stop_gradient cuts off in the module, so that neither weight decay nor momentum
    moves it either.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _is_trainable([entry.key for entry in path], config), params
    )


def _is_trainable(path: list[str], config: ModelConfig) -> bool:
    if path[0] != "backbone":
        return True
    module, parent = path[1], path[-2]
    stage = int(module[len("layer")]) + 1 if module.startswith("layer") else 1
    is_norm = parent.startswith("bn") or parent == "downsample_bn"
    return stage > config.frozen_stages and not (is_norm and config.norm == "frozen_batch")
