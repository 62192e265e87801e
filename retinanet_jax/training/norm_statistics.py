"""Computes statistics for pretrained weights whose batch norm has none, from training images.

Weights for inference often have batch norm folded into the convolutions, or reduced to a multiplier
and an offset (detectron2). As long as the norm is frozen, the network is the same. Live batch norm
(model.norm='batch') divides by the spread of a batch, by which such weights are divided already.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float

from retinanet_jax.config.settings import Config
from retinanet_jax.core.differentiation import any_derivative
from retinanet_jax.core.layers import Conv, normalize
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.pipeline.batch import Batch, DroppedBoxes
from retinanet_jax.data.pipeline.input_pipeline import train_batches
from retinanet_jax.data.pipeline.prefetch import HasSource

Variables = Mapping[str, Any]
Path = tuple[str, ...]

IMAGES = 32


def norms_without_statistics(variables: Variables) -> list[Path]:
    """Finds the batch norms of a ResNet that have a mean of 0, but a changed scale or offset."""
    params, statistics = _flat(variables, "params"), _flat(variables, "batch_stats")
    norms = [path[:-1] for path in statistics if path[-1] == "mean"]
    return [
        norm
        for norm in norms
        if (*_convolution(norm), "kernel") in params
        and not np.any(statistics[*norm, "mean"])
        and (np.any(params[*norm, "bias"]) or np.any(params[*norm, "scale"] != 1))
    ]


def with_statistics(variables: Variables, batches: Iterable[Batch], config: Config) -> Variables:
    """Returns variables of the same function whose batch norms have the statistics of the batches.

    The scale and offset of each norm are adjusted so that its output does not change.

    Args:
        variables: variables of the network, on the host or a device.
        batches: batches whose images and sizes are read.
        config: configuration, of which the sections model and pixels are read.
    """
    params, statistics = _flat(variables, "params"), _flat(variables, "batch_stats")
    norms, epsilon = norms_without_statistics(variables), config.model.norm_epsilon
    for norm in norms:
        multiplier = params[*norm, "scale"] / np.sqrt(statistics[*norm, "var"] + epsilon)
        kernel = (*_convolution(norm), "kernel")
        params[kernel] = params[kernel] * multiplier
        params[*norm, "scale"] = np.ones_like(multiplier)
        statistics[*norm, "var"] = np.full_like(multiplier, 1 - epsilon)
    means, variances = _moments(_nested(params, statistics), batches, config)
    for norm in norms:
        mean, variance = means[norm], variances[norm]
        statistics[*norm, "mean"], statistics[*norm, "var"] = mean, variance
        params[*norm, "scale"] = np.sqrt(variance + epsilon)
        params[*norm, "bias"] = params[*norm, "bias"] + mean
    return _nested(params, statistics)


def sample_batches(train_set: HasSource, config: Config) -> Iterator[Batch]:
    """Returns the first batches of a run, IMAGES images or one batch, the same on all processes."""
    count = max(1, IMAGES // config.train.batch_size)
    batches = train_batches(
        train_set,
        batch_size=config.train.batch_size,
        seed=config.seed,
        settings=config.pipeline,
        augmentation=config.augmentation,
        total_steps=count,
        dropped=DroppedBoxes(warn=False),
    )
    return (batches[i].batch for i in range(count))


def _moments(
    variables: Variables, batches: Iterable[Batch], config: Config
) -> tuple[dict[Path, np.ndarray], dict[Path, np.ndarray]]:
    """Mean and variance of the channels of each convolution, by the path of its norm."""
    model = build_model(dataclasses.replace(config.model, remat="none"), 1, 1)

    @jax.jit
    def of_batch(
        variables: Variables, images: Array, sizes: Float[Array, "b 2"]
    ) -> dict[Path, tuple[Float[Array, "c"], Float[Array, "c"]]]:
        _, captured = model.apply(
            variables,
            normalize(images, config.pixels, sizes),
            method="features",
            capture_intermediates=lambda module, _: isinstance(module, Conv),
            mutable=["intermediates"],
        )
        outputs = traverse_util.flatten_dict(captured["intermediates"])
        return {
            _norm(path[:-1]): (y.mean((0, 1, 2)), jnp.square(y).mean((0, 1, 2)))
            for path, (y,) in outputs.items()
        }

    # Plain convolutions: a few batches do not pay for compiling those that are fast on CPUs.
    with any_derivative():
        found = [
            jax.device_get(of_batch(variables, batch.images, batch.image_sizes))
            for batch in batches
        ]
    means = {path: np.mean([moments[path][0] for moments in found], axis=0) for path in found[0]}
    squares = {path: np.mean([moments[path][1] for moments in found], axis=0) for path in found[0]}
    return means, {path: np.maximum(squares[path] - means[path] ** 2, 0) for path in means}


def _convolution(norm: Path) -> Path:
    """('layer1_0', 'bn1') -> ('layer1_0', 'conv1')."""
    *parents, name = norm
    return (*parents, name.replace("bn", "conv"))


def _norm(convolution: Path) -> Path:
    """The inverse of `_convolution`."""
    *parents, name = convolution
    return (*parents, name.replace("conv", "bn"))


def _flat(variables: Variables, collection: str) -> dict[Path, np.ndarray]:
    return traverse_util.flatten_dict(jax.device_get(variables.get(collection, {})))


def _nested(params: Mapping[Path, np.ndarray], statistics: Mapping[Path, np.ndarray]) -> Variables:
    return {
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(statistics),
    }
