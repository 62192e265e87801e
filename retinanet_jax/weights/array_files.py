"""Files of plain arrays: numpy's .npz and .safetensors. Neither can hold code."""

import json
import mmap
import re
from collections.abc import Mapping

import numpy as np

from retinanet_jax.weights.constructors import NUMPY_CODES
from retinanet_jax.weights.tensors import BFLOAT16, Budget, Storage, Tensor, contiguous_tensor
from retinanet_jax.weights.weights_error import WeightsError, shown
from retinanet_jax.weights.zip_records import Record, contents

# The header of a .npy file as numpy writes it (numpy.lib.format), with Python 2's long integers.
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|=])(\w\d+)', 'fortran_order': (True|False), 'shape': \(([\dL, ]*)\),? *\}"
    rb" *\n?"
)
_MAX_NPY_HEADER = 4096
# The format allows 100 MB; a detector takes 50 kB, and text grows 20-fold as Python objects.
_MAX_SAFETENSORS_HEADER = 8 * 2**20
_SAFETENSORS_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_npz(data: mmap.mmap, records: Mapping[str, Record], budget: Budget) -> dict[str, Tensor]:
    """The arrays of a .npz file, by name; raises WeightsError for pickled ones and damage."""
    tensors = {}
    for name, record in records.items():
        if not name.endswith(".npy"):
            raise WeightsError(f"the .npz file has the record {shown(name)}, which is no array")
        raw = memoryview(contents(data, record, budget))
        tensors[name.removesuffix(".npy")] = _npy_tensor(shown(name), raw)
    return tensors


def _npy_tensor(name: str, raw: memoryview) -> Tensor:
    # Magic (6 bytes), version (2), length of the header (2 bytes in version 1, else 4), header.
    if len(raw) < 12 or raw[:6] != b"\x93NUMPY" or raw[6] not in (1, 2, 3):
        raise WeightsError(f"{name} does not begin like a numpy array: the file is damaged")
    start = 10 if raw[6] == 1 else 12
    size = int.from_bytes(raw[8:start], "little")
    match = _NPY_HEADER.fullmatch(bytes(raw[start : start + min(size, _MAX_NPY_HEADER)]))
    if match is None or match[2].decode() not in NUMPY_CODES:
        raise WeightsError(
            f"{name} is no array of plain numbers (numpy's {', '.join(NUMPY_CODES)}); objects are"
            " not read, save bfloat16 as float32"
        )
    dtype = np.dtype((match[1] + match[2]).decode())
    shape = tuple(_axis(name, axis) for axis in match[4].split(b",") if axis.strip())
    storage = Storage(name, dtype, (len(raw) - start - size) // dtype.itemsize)
    storage.attach(raw[start + size :])
    return contiguous_tensor(storage, shape, fortran=match[3] == b"True")


def _axis(name: str, text: bytes) -> int:
    digits = text.strip().rstrip(b"L")
    if not digits.isdigit() or len(digits) > 20:
        raise WeightsError(f"{name} has a broken shape: the file is damaged")
    return int(digits)


def is_safetensors(data: mmap.mmap) -> bool:
    """Whether the file begins like a safetensors file: a length, then a JSON object."""
    size = int.from_bytes(data[:8], "little")
    return data[8:9] == b"{" and 2 <= size <= max(len(data), _MAX_SAFETENSORS_HEADER)


def read_safetensors(data: mmap.mmap) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, by name.

    Read by the rules of the format's documentation: names once, offsets in the buffer behind the
    header, without gaps or overlaps, the last one at the end of the file. The safetensors package
    has no bfloat16 for numpy. Raises WeightsError for all else.
    """
    size = int.from_bytes(data[:8], "little")
    if size > min(len(data) - 8, _MAX_SAFETENSORS_HEADER):
        raise WeightsError("the safetensors header is cut off or over 8 MiB: get the file again")
    header = _json_header(data[8 : 8 + size])
    header.pop("__metadata__", None)
    entries = sorted((_entry(name, fields) for name, fields in header.items()), key=lambda e: e[2:])
    body, position, tensors = memoryview(data)[8 + size :], 0, {}
    for storage, shape, begin, end in entries:
        if begin != position or not begin <= end <= len(body):
            raise WeightsError(f"tensor {storage.label} leaves a gap, overlaps or is cut off")
        storage.attach(body[begin:end])
        tensors[storage.name] = contiguous_tensor(storage, shape)
        position = end
    if position != len(body):
        raise WeightsError(f"{len(body) - position} bytes belong to no tensor: the file is damaged")
    return tensors


def _json_header(raw: bytes) -> dict:
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"the safetensors header is no JSON: {shown(str(error))}") from error
    if not isinstance(header, dict):
        raise WeightsError("the safetensors header is no JSON object: the file is damaged")
    return header


def _unique(pairs: list) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _entry(name: str, fields: object) -> tuple[Storage, list, int, int]:
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"tensor {shown(name)} lacks dtype, shape or data_offsets: damaged")
    offsets, shape, dtype = fields["data_offsets"], fields["shape"], fields["dtype"]
    if type(dtype) is not str or dtype not in _SAFETENSORS_DTYPES:
        known = ", ".join(_SAFETENSORS_DTYPES)
        raise WeightsError(f"tensor {shown(name)} has a dtype that is not one of {known}")
    numbers = [*offsets, *shape] if isinstance(offsets, list) and isinstance(shape, list) else None
    if numbers is None or len(offsets) != 2 or any(type(n) is not int or n < 0 for n in numbers):
        raise WeightsError(f"tensor {shown(name)} has a broken shape or broken data_offsets")
    begin, end = offsets
    numpy_dtype = _SAFETENSORS_DTYPES[dtype]
    storage = Storage(name, numpy_dtype, max(end - begin, 0) // numpy_dtype.itemsize)
    return storage, shape, begin, end
