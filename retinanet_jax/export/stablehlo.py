"""A detector as one file that runs with JAX alone, on CPU, CUDA and TPU.

The file is an uncompressed zip archive: `metadata.json` and `program`, a serialized
`jax.export.Exported` with the weights. docs/export.md has the code that runs it.
"""

import io
import json
import zipfile
from typing import Any

import jax
from jax import export

from retinanet_jax.export.program import Arguments, Program

PLATFORMS = ("cpu", "cuda", "tpu")
# "Compatibility guarantees" in JAX's documentation of jax.export.
READABLE_WITH = f"JAX {jax.__version__} and any JAX released in the 6 months after it"


def to_stablehlo(program: Program, arguments: Arguments, metadata: dict[str, Any]) -> bytes:
    """Returns the content of the file.

    Args:
        program: function from `make_program` or `make_network_program`.
        arguments: inputs of the program.
        metadata: description from `describe_program`.
    """
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(*arguments.values())
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        described = metadata | {
            "platforms": list(PLATFORMS),
            "calling_convention_version": exported.calling_convention_version,
            "readable_with": READABLE_WITH,
        }
        archive.writestr("metadata.json", json.dumps(described, indent=2))
        archive.writestr("program", exported.serialize())
    return content.getvalue()
