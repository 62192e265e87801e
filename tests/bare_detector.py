"""Runs an exported file with JAX alone: bare_detector.py MODEL IN.npz OUT.npz.

The lines of docs/export.md, in a process that cannot import this package or its dependencies.
"""

import json
import sys
import zipfile


class Blocker:
    """Refuses to import the packages that running an exported file does not need."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("retinanet_jax", "flax", "optax", "orbax", "cv2"):
            raise ModuleNotFoundError(f"{name} is not installed here")


sys.meta_path.insert(0, Blocker())

import jax  # noqa: E402  (the blocker comes first)
import numpy as np  # noqa: E402
from jax import export  # noqa: E402

model, inputs, outputs = sys.argv[1:]
with zipfile.ZipFile(model) as file:
    metadata = json.loads(file.read("metadata.json"))
    detect = jax.jit(export.deserialize(bytearray(file.read("program"))).call)

given = np.load(inputs)
found = detect(given["images"], given["sizes"])
np.savez(outputs, **found)
print(json.dumps(metadata["classes"]))
