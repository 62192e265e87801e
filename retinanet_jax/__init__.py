"""RetinaNet in JAX and Flax: exact, fast, at home on CPU, GPU and TPU.

>>> from retinanet_jax import Detector                                      # doctest: +SKIP
>>> found = Detector.from_checkpoint("runs/shapes")("photo.jpg")            # doctest: +SKIP
"""

import importlib
from typing import Any

# Where the public names live. They are imported when they are first asked for, so that
# `import retinanet_jax` takes no time and needs no device.
_PUBLIC = {
    "Detector": "retinanet_jax.detector",
    "ImageDetections": "retinanet_jax.results",
}
__all__ = ["Detector", "ImageDetections"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
