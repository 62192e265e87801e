"""The plain network as a LiteRT file (.tflite), converted from StableHLO by litert-converter.

The metadata are the file metadata.json of a zip archive behind the model, where TensorFlow Lite
keeps labels and other files; interpreters ignore it.
"""

import io
import json
import zipfile
from typing import Any

import jax
from jax import export
from litert_converter import converter_api_ext as converter
from litert_converter.mlir import ir, passmanager
from litert_converter.mlir.dialects import stablehlo

from retinanet_jax.export.program import Arguments, Program

# XLA's own convolutions: those of core/cpu/ are written for the CPU of the training.
_PLATFORM = "tpu"


def to_litert(program: Program, arguments: Arguments, metadata: dict[str, Any]) -> bytes:
    """Returns the content of the file, for one image at a time.

    Args:
        program: function from `make_network_program`, without NMS.
        arguments: inputs; their batch size becomes 1, because LiteRT's sizes are fixed.
        metadata: description from `describe_network`.
    """
    inputs = {
        name: jax.ShapeDtypeStruct((1, *argument.shape[1:]), argument.dtype)
        for name, argument in arguments.items()
    }
    names = sorted(jax.eval_shape(program, *inputs.values()))

    def outputs(*images):
        found = program(*images)
        return [found[name] for name in names]

    exported = export.export(jax.jit(outputs), platforms=(_PLATFORM,))(*inputs.values())
    content = io.BytesIO(_convert(exported.mlir_module_serialized, list(inputs), names))
    content.seek(0, io.SEEK_END)
    described = json.dumps(metadata, indent=2).replace("[batch, ", "[1, ")
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("metadata.json", described)
    return content.getvalue()


def _convert(module: bytes, inputs: list[str], outputs: list[str]) -> bytes:
    """A LiteRT model from StableHLO's portable form."""
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context, ir.Location.unknown():
        parsed = stablehlo.deserialize_portable_artifact(context, module)
        names = {"input_names": inputs, "output_names": outputs}
        converter.set_signature(parsed.operation, signature_name="serving_default", **names)
        settings = converter.ConvertToTFLConfig()
        settings.model_origin_framework = "JAX"
        converter.run_convert_to_tfl_passes(parsed, passmanager.PassManager(), settings)
        return bytes(converter.export_flatbuffer_to_bytes(parsed.operation))
