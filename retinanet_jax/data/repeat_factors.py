"""Repeat-factor sampling: images of rare classes appear several times per epoch.

LVIS (Gupta et al., arXiv 1908.03195), section on repeat-factor sampling: with f(c) the share of
training images that have an object of class c and a threshold t, a class has the factor
max(1, sqrt(t / f(c))), and an image the largest factor of its classes.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from retinanet_jax.data.example_sources import Source
from retinanet_jax.data.records import Categories


def labels_by_image(source: Source) -> list[np.ndarray]:
    """Returns the distinct labels of each image, crowds included. No image is decoded."""
    return [np.unique(source.annotated(index).labels) for index in range(len(source))]


def class_shares(labels: Sequence[np.ndarray], num_classes: int) -> Float[np.ndarray, " k"]:
    """Returns f(c), the fraction of the images that have an object of class c."""
    counts = np.zeros(num_classes)
    for of_image in labels:
        counts[of_image] += 1
    return counts / max(len(labels), 1)


def repeat_factors(
    labels: Sequence[np.ndarray], shares: Float[np.ndarray, " k"], threshold: float
) -> Float[np.ndarray, " n"]:
    """Returns how often each image appears per epoch, on average; 1 if it has no objects."""
    with np.errstate(divide="ignore"):  # of classes that no image has
        by_class = np.maximum(1, np.sqrt(threshold / shares))
    return np.array([by_class[of_image].max(initial=1) for of_image in labels])


def describe(
    factors: Float[np.ndarray, " n"], shares: Float[np.ndarray, " k"], categories: Categories
) -> str:
    """Returns a line for the log."""
    seen = np.flatnonzero(shares > 0)
    rarest = seen[np.argsort(shares[seen], kind="stable")][:3]
    listed = ", ".join(f"{categories.names[i]} in {shares[i]:.2%}" for i in rarest)
    return (
        f"repeat-factor sampling: {(factors > 1).sum()} of {len(factors)} images appear more "
        f"than once per epoch, up to {factors.max(initial=1):.1f} times; an epoch has "
        f"{factors.sum():.0f} images; rarest classes: {listed} of the images"
    )
