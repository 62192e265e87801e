"""RetinaNet (Lin et al. 2017, arXiv 1708.02002): backbone, FPN and heads; its trainable mask."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.backbones import BACKBONES
from retinanet_jax.core.box_outputs import BoxOutputs
from retinanet_jax.core.field_checks import one_of
from retinanet_jax.core.fpn import FPN
from retinanet_jax.core.heads import BoxHead, Head, prior_bias
from retinanet_jax.core.norms import NORM_KINDS, NUM_GROUPS
from retinanet_jax.core.resnet import stages_of


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network. The defaults are MMDetection's ResNet-50, plus the paper's ReLU before P7.

    Raises:
      ValueError: an invalid value; the message names the field and the fix.
    """

    backbone: str = "resnet50"
    """A name in BACKBONES (backbones.py)."""
    pretrained: str | None = None
    """Checkpoint to start from: path, URL or hf://owner/name/file. 'none': random weights."""
    stride_on: str = "3x3"
    """Which convolution of a bottleneck has the stride: 3x3 (torchvision, MMDetection) or 1x1 (the
    paper, Detectron2)."""
    norm: str = "frozen_batch"
    """Norm of the backbone: frozen_batch, batch (live) or group. 'auto': frozen_batch with
    pretrained weights, else batch."""
    norm_epsilon: float | int = 1e-5
    """Epsilon of the backbone's norms."""
    norm_momentum: float | int = 0.1
    """Weight of each batch in the running statistics of the backbone's norms."""
    frozen_stages: int = 2
    """Stages of a ResNet that are not trained: 0 none, 1 the stem, 2 stem and layer1, ..., 5 all.
    'auto': 2. Random weights and other backbones are never frozen."""
    backbone_levels: tuple[int, ...] = (3, 4, 5)
    """Consecutive C levels that enter the FPN."""
    max_level: int = 7
    """Highest P level."""
    extra_levels_from: str = "backbone"
    """Input of P6: C5 (backbone) or P5 (fpn)."""
    relu_before_p7: bool = True
    """Whether a ReLU precedes every extra level but the first; MMDetection has none."""
    fpn_channels: int = 256
    """Channels of every P level."""
    head_depth: int = 4
    """Number of 3x3 convolutions of each head before its output."""
    head_channels: int = 256
    """Channels of the convolutions of the heads."""
    head_norm: str = "none"
    """Norm of the heads: none, or group (torchvision v2)."""
    prior: float = 0.01
    """Probability of an object at initialisation, set by the class output's bias (paper, 4.1)."""
    output_std: float = 0.01
    """Standard deviation of the initial weights of both outputs."""
    centerness: bool = False
    """Whether the box head predicts how close an anchor is to the middle of its object; scores are
    multiplied by it (FCOS, ATSS; core/centerness.py)."""
    box_bins: int = 0
    """Number of steps of the distribution that the box head predicts for each side of a box, for
    the distribution focal loss (arXiv 2006.04388: 17; core/box_distribution.py). The steps reach
    from the centre of an anchor to (box_bins - 1) / 8 of its side. 0: the head predicts deltas."""
    dtype: str = "float32"
    """Type of the computation: float32 or bfloat16. Parameters, logits and deltas are float32."""
    precision: str = "default"
    """Precision of float32 products on GPU and TPU: default (TF32 or bfloat16 passes), high or
    highest (float32). CPUs always compute in float32."""
    remat: str = "none"
    """What training recomputes to save memory: none, backbone, or all (backbone and heads)."""

    def __post_init__(self):
        # ml_collections and JSON pass lists.
        object.__setattr__(self, "backbone_levels", tuple(self.backbone_levels))
        self._check_choices()
        self._check_levels()
        self._check_numbers()

    def _check_choices(self):
        choices = {
            "backbone": BACKBONES,
            "stride_on": ("3x3", "1x1"),
            "norm": NORM_KINDS,
            "extra_levels_from": ("backbone", "fpn"),
            "head_norm": ("none", "group"),
            "dtype": ("float32", "bfloat16"),
            "precision": ("default", "high", "highest"),
            "remat": ("none", "backbone", "all"),
        }
        for field, allowed in choices.items():
            one_of(f"model.{field}", getattr(self, field), allowed)
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
            raise ValueError(
                f"model.backbone_levels: {levels!r} are not within 2 to 5; write e.g. (3, 4, 5)"
            )
        if self.max_level < levels[-1]:
            raise ValueError(
                f"model.max_level: {self.max_level!r} is below the highest of backbone_levels; "
                f"write {levels[-1]} or more"
            )

    def _check_numbers(self):
        for field, least in (("fpn_channels", 1), ("head_channels", 1), ("head_depth", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"model.{field}: {getattr(self, field)!r} must be {least} or more")
        if self.box_bins < 0 or self.box_bins == 1:
            raise ValueError(
                f"model.box_bins: {self.box_bins!r} must be 2 or more, or 0 for none; write 17"
            )
        if self.head_norm == "group" and self.head_channels % NUM_GROUPS:
            raise ValueError(
                f"model.head_channels: {self.head_channels!r} is not a multiple of {NUM_GROUPS}, "
                "as head_norm 'group' needs"
            )
        if not 0 < self.prior < 1:
            raise ValueError(f"model.prior: {self.prior!r} is not between 0 and 1; write 0.01")
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
    """Outputs per level, lowest first, with anchors in the order H, W, A; float32."""

    class_logits: tuple[Float[Array, "b _ k"], ...]
    box_deltas: tuple[Float[Array, "b _ 4"] | BoxOutputs, ...]
    """(dx, dy, dw, dh); BoxOutputs with model.centerness or model.box_bins."""


class RetinaNet(nn.Module):
    """Maps normalised images to Predictions.

    Variables: 'params' (float32) and, unless the norm is 'group', 'batch_stats'. With norm 'batch',
    pass `mutable=["batch_stats"]` for train=True: `apply(variables, images, train=True,
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
            precision=config.precision,
        )
        self.class_head = self._head(
            Head, prior_bias(config.prior), values_per_anchor=self.num_classes
        )
        self.box_head = self._head(
            BoxHead,
            0.0,
            values_per_anchor=4 * max(config.box_bins, 1),
            predicts_centerness=config.centerness,
            bins=config.box_bins,
        )

    def _head(self, kind: type[Head], output_bias: float, **more: Any) -> Head:
        kind = nn.remat(kind) if self.config.remat == "all" else kind
        return kind(
            anchors_per_location=self.anchors_per_location,
            depth=self.config.head_depth,
            channels=self.config.head_channels,
            norm=self.config.head_norm,
            output_bias=output_bias,
            output_std=self.config.output_std,
            **more,
            dtype=jnp.dtype(self.config.dtype),
            precision=self.config.precision,
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
        """Returns the levels of backbone ('C2', 'C3', ...) and FPN ('P3', ...), each [b h w c].

        Usage: `model.apply(variables, images, method="features")`.
        """
        backbone = self.backbone(images, train)
        named = {f"C{level}": x for level, x in backbone.items()}
        return named | {f"P{level}": x for level, x in self.fpn(backbone).items()}


def build_model(config: ModelConfig, num_classes: int, anchors_per_location: int) -> RetinaNet:
    """Builds the network of a config.

    Raises:
      ValueError: num_classes or anchors_per_location is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes: {num_classes!r} must be 1 or more")
    if anchors_per_location < 1:
        raise ValueError(f"anchors_per_location: {anchors_per_location!r} must be 1 or more")
    return RetinaNet(config, num_classes, anchors_per_location)


def trainable_mask(params: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Returns a tree like params that is True where the optimizer updates a leaf.

    It is False for the frozen stages of a ResNet and, with norm 'frozen_batch', for scale and bias
    of its norms; other backbones are trained as a whole. The module stops the gradients of the same
    leaves; the mask keeps weight decay and momentum from changing them.
    """
    stages = stages_of(params["backbone"])

    def is_trainable(path: tuple[jax.tree_util.DictKey, ...], leaf: Any) -> bool:
        top, module, *rest = [entry.key for entry in path]
        if top != "backbone" or module not in stages:
            return True
        norm = [module, *rest][-2]
        is_norm = norm.startswith("bn") or norm == "downsample_bn"
        frozen_norm = is_norm and config.norm == "frozen_batch"
        return stages[module] >= config.frozen_stages and not frozen_norm

    return jax.tree_util.tree_map_with_path(is_trainable, params)
