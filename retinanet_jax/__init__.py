"""RetinaNet in JAX and Flax for CPU, GPU and TPU.

>>> import retinanet_jax                                                    # doctest: +SKIP
>>> detector = retinanet_jax.train("my_data/", epochs=20)                   # doctest: +SKIP
>>> detections = detector("photo.jpg")                                      # doctest: +SKIP

The functions of the paper are in `retinanet_jax.core`.
"""

import importlib
from typing import Any

# Where the public names are defined. Each is imported at its first use, so that
# `import retinanet_jax` is quick and needs no device.
_PUBLIC = {
    "Config": "retinanet_jax.config.settings",
    "ConfigError": "retinanet_jax.config.settings",
    "Detector": "retinanet_jax.inference.detector",
    "ImageDetections": "retinanet_jax.inference.results",
    "evaluate_workdir": "retinanet_jax.training.workdir_evaluation",
    "load_config": "retinanet_jax.config.experiment_files",
    "train": "retinanet_jax.training.train_detector",
    "train_and_evaluate": "retinanet_jax.training.run",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
