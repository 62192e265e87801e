"""Reads the weights of any public checkpoint into a flat dictionary of numpy arrays.

    arrays = read_state_dict("retinanet_resnet50_fpn_coco-eeacb38b.pth")

The format is told from the file's content, never from its name: .npz, .safetensors, torch's three
formats and detectron2's .pkl. Nothing in the file is run, torch is not needed, and memory and time
stay in proportion to the file's size, whoever made it.
"""

import mmap
import os

import numpy as np

from retinanet_jax.weights.array_files import is_safetensors, read_npz, read_safetensors
from retinanet_jax.weights.constructors import PendingArray
from retinanet_jax.weights.tensors import Budget, Tensor, to_array
from retinanet_jax.weights.torch_files import (
    LEGACY_PREFIX,
    read_torch_legacy,
    read_torch_zip,
    whole_pickle,
)
from retinanet_jax.weights.torch_tar import is_tar, read_torch_tar
from retinanet_jax.weights.unpickler import Unpickler
from retinanet_jax.weights.weights_error import WeightsError, shown
from retinanet_jax.weights.zip_records import read_records

# Where a checkpoint keeps its weights: mmdetection, timm; detectron2, torchvision's references.
_WRAPPERS = ("state_dict", "model")
# The first byte of a pickle: PROTO, or in protocols 0 and 1 a group, a name, an empty container.
_PICKLE_STARTS = (b"\x80", b"(", b"c", b"}", b"]", b")", b"i")


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by their names in the file, in the order of the file.

    Checkpoints that wrap their weights, as {'model': ...} (detectron2) or {'state_dict': ...,
    'meta': ...} (mmdetection), are unwrapped; the rest of the wrapping (iteration, optimizer,
    settings) is left out. The arrays are new, C-contiguous and of the dtype in the file: float16,
    and ml_dtypes.bfloat16 for bfloat16. Shapes are those of the file (torch: out, in, h, w).

    Raises:
        WeightsError: naming the file and the fix, for a file that cannot be opened, is damaged,
            contradicts itself, or asks for anything but tensors, arrays and plain containers.
    """
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise WeightsError("the file is empty; get it again")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        budget = Budget.for_file(len(data))
        return _flat(_unwrapped(_read(data, budget)), budget)
    except WeightsError as error:
        raise WeightsError(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        raise WeightsError(
            f"{os.fspath(path)}: cannot be read ({error.strerror}); give the path of a checkpoint"
        ) from error


def _read(data: mmap.mmap, budget: Budget) -> object:
    if data[:4] in (b"PK\3\4", b"PK\5\6"):
        return _read_zip(data, budget)
    if data[: len(LEGACY_PREFIX)] == LEGACY_PREFIX:
        return read_torch_legacy(data, budget)
    if is_tar(data):
        return read_torch_tar(data, budget)
    if is_safetensors(data):
        return read_safetensors(data)
    if data[:1] in _PICKLE_STARTS:
        return whole_pickle(Unpickler(data, budget))
    raise WeightsError(
        f"begins with {bytes(data[:16])!r}: neither .npz, .safetensors, .pth nor .pkl; a web page"
        " or a Git LFS pointer means that the download gave something else than the file"
    )


def _read_zip(data: mmap.mmap, budget: Budget) -> object:
    records = read_records(data)
    if any(name.endswith("/data.pkl") for name in records):
        return read_torch_zip(data, records, budget)
    return read_npz(data, records, budget)


def _unwrapped(content: object) -> dict:
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            return content[name]
    if not isinstance(content, dict):
        raise WeightsError(
            f"holds a {type(content).__name__}, not a state dict; save model.state_dict()"
        )
    return content


def _flat(state: dict, budget: Budget) -> dict[str, np.ndarray]:
    arrays, strange = {}, []
    for name, value in state.items():
        tensor = value.tensor if isinstance(value, PendingArray) else value
        if type(name) is str and isinstance(tensor, Tensor):
            arrays[name] = to_array(tensor, shown(name), budget)
        elif type(name) is str and type(value) in (int, float, bool) and abs(value) < 2**63:
            arrays[name] = np.asarray(value)
        else:
            strange.append(f"{_label(name)} ({_kind(value)})")
    if strange or not arrays:
        listed = ", ".join(strange[:8]) + (", ..." if len(strange) > 8 else "")
        raise WeightsError(
            f"holds no flat state dict: no array is {listed or 'in it'}; save model.state_dict()"
        )
    return arrays


def _label(name: object) -> str:
    return shown(name) if type(name) is str else f"a key of type {type(name).__name__}"


def _kind(value: object) -> str:
    return "an array without data" if isinstance(value, PendingArray) else type(value).__name__
