"""Runs an exported file with JAX alone: bare_detector.py MODEL IN.npz OUT.npz.

A copy of the lines in docs/export.md, behind a door that is shut to everything but JAX.
"""

import json
import sys
import zipfile


class Shut:
    """Refuses to import what a machine that only runs exported files does not have."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("retinanet_jax", "flax", "optax", "orbax", "grain", "cv2"):
            raise ModuleNotFoundError(f"{name} is not installed here")


sys.meta_path.insert(0, Shut())

import jax  # noqa: E402  (not before the door is shut)
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
