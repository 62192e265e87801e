"""Files of plain arrays, which cannot hold code: numpy's .npz and .safetensors."""

import io
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from retinanet_jax.weights.tensors import Budget
from retinanet_jax.weights.weights_error import WeightsError, shown
from retinanet_jax.weights.zip_records import read_record


def read_npz(archive: zipfile.ZipFile, budget: Budget) -> dict[str, np.ndarray]:
    """The arrays of a .npz file, by name; raises WeightsError for pickled ones and damage."""
    arrays = {}
    for name in archive.namelist():
        if not name.endswith(".npy"):
            raise WeightsError(f"the .npz file has the record {shown(name)}, which is not an array")
        file = io.BytesIO(read_record(archive, name, budget))
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # of a damaged header: also what Python's tokenizer raises
            raise WeightsError(
                f"{shown(name)} is damaged, or not an array of plain numbers ({shown(error)})"
            ) from error
        if file.read(1):
            raise WeightsError(
                f"{shown(name)} has more bytes than its shape needs: the file is damaged"
            )
        arrays[name.removesuffix(".npy")] = _plain(array, name)
    return arrays


def is_safetensors(start: bytes, file_size: int) -> bool:
    """Whether the file starts like a safetensors file: a length, then a JSON object."""
    return start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= max(file_size, 2**23)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file, by name; raises WeightsError for a damaged file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: _plain(file.get_tensor(name), name) for name in file.offset_keys()}
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"the safetensors file is damaged, or has a dtype that numpy lacks ({shown(error)})"
        ) from error


def _plain(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == ml_dtypes.bfloat16:
        return array
    if array.dtype.kind not in "fiub":
        raise WeightsError(
            f"{shown(name)} has the dtype {shown(array.dtype)}, not plain numbers; save bfloat16 "
            "as float32"
        )
    if array.dtype.kind == "b":
        return array.view(np.uint8) != 0  # a byte other than 0 and 1 is no valid numpy bool
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
