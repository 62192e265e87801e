"""Checks which detections of an image a caller asks for: threshold, classes, number."""

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.core.postprocess import PostprocessConfig
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.wording import did_you_mean


def check_selection(
    limits: PostprocessConfig,
    categories: Categories,
    threshold: Any,
    classes: Any,
    max_detections: Any,
) -> None:
    """Checks the arguments of ImageDetections.select.

    Args:
      limits: limits of the compiled function, which drops all other detections.
      categories: known classes.
      threshold: lowest score, or None.
      classes: class names, or None.
      max_detections: maximum number of detections, or None.

    Raises:
      ConfigError: a value is invalid, a class is unknown, or the limits do not allow a value.
    """
    check_threshold(threshold, limits.score_threshold)
    check_number(max_detections, limits.max_detections)
    if classes is not None:
        labels_of(classes, categories)


def check_threshold(threshold: Any, lowest: float = 0.0) -> None:
    """Raises ConfigError unless a threshold is None or a score of at least `lowest`."""
    if threshold is None:
        return
    if not isinstance(threshold, numbers.Real):
        raise ConfigError(f"threshold: {threshold!r} is not a number; write e.g. 0.5")
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: {threshold} is not between 0 and 1")
    if threshold < lowest:
        fix = f"detector.with_postprocess(score_threshold={threshold})"
        raise ConfigError(
            f"threshold: {threshold} is below config.postprocess.score_threshold, {lowest}; "
            f"use {fix}"
        )


def check_number(max_detections: Any, most: int | None = None) -> None:
    """Raises ConfigError unless a number of detections is None or 1 to `most`."""
    if max_detections is None:
        return
    if not isinstance(max_detections, numbers.Integral):
        raise ConfigError(f"max_detections: {max_detections!r} is not an integer")
    if max_detections < 1:
        raise ConfigError(f"max_detections: {max_detections} must be at least 1")
    if most is not None and max_detections > most:
        fix = f"detector.with_postprocess(max_detections={max_detections})"
        raise ConfigError(
            f"max_detections: {max_detections} is above config.postprocess.max_detections, "
            f"{most}; use {fix}"
        )


def labels_of(classes: Sequence[str], categories: Categories) -> list[int]:
    """Returns the labels of class names.

    Raises:
      ConfigError: a class does not exist.
    """
    if not isinstance(classes, Iterable):
        raise ConfigError(f"classes: {classes!r} is not a list of class names")
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    known = {name: label for label, name in enumerate(categories.names)}
    for name in classes:
        if name not in known:
            raise ConfigError(f"classes: no class {name!r}; {_near(str(name), list(known))}")
    return [label for label, name in enumerate(categories.names) if name in classes]


def _near(name: str, names: list[str]) -> str:
    if hint := did_you_mean(name, names):
        return hint
    return f"the classes are {', '.join(names[:20])}{', ...' * (len(names) > 20)}"
