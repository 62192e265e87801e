"""Reads the weights of any public checkpoint into a flat dictionary of numpy arrays.

    arrays = read_state_dict("retinanet_resnet50_fpn_coco-eeacb38b.pth")

The file's content gives the format, not its name: .npz, .safetensors, torch's zip and older format,
and detectron2's .pkl. Nothing in the file runs, torch is not needed, and memory and time stay in
proportion to the file's size, whoever made it.
"""

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet_jax.weights.array_files import is_safetensors, read_npz, read_safetensors
from retinanet_jax.weights.pickle_constructors import ArrayStub, Inert
from retinanet_jax.weights.tensors import Budget, Tensor, to_array
from retinanet_jax.weights.torch_files import LEGACY_PREFIX, read_torch_legacy, read_torch_zip
from retinanet_jax.weights.unpickler import whole_pickle
from retinanet_jax.weights.weights_error import WeightsError, shown
from retinanet_jax.weights.zip_records import open_zip

# Where a checkpoint keeps its weights: MMDetection, timm, Lightning; detectron2, torchvision's
# references; torch's tutorials; Caffe2. And where it keeps their moving average.
_WEIGHTS = ("state_dict", "model", "model_state_dict", "model_state", "net", "blobs")
_AVERAGES = ("ema_state_dict", "state_dict_ema", "model_ema", "ema")
_COUNTERS = ("steps", "n_averaged", "updates")
# The first byte of a pickle: PROTO; in protocols 0 and 1 a group, a name or an empty container.
_PICKLE_STARTS = (b"\x80", b"(", b"c", b"}", b"]", b")", b"i")


class Contents(NamedTuple):
    """What a checkpoint file holds.

    arrays: by their names in the file, in the order of the file.
    notes: one line for each part that was left out, for the log.
    class_names: as MMDetection writes them into `meta`; () if there are none.
    author: as detectron2's model zoo writes it; '' if there is none.
    is_average: the arrays are the moving average (EMA) of the weights.
    """

    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...]
    class_names: tuple[str, ...]
    author: str
    is_average: bool


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by their names in the file; see read_checkpoint."""
    return read_checkpoint(path).arrays


def read_checkpoint(path: str | os.PathLike, *, average: bool = False) -> Contents:
    """The weights of a checkpoint.

    A checkpoint that wraps its weights, such as {'model': ...} (detectron2) or {'state_dict': ...,
    'meta': ...} (MMDetection, Lightning), is unwrapped; optimizer state and settings are left out.
    The arrays are new, C-contiguous and of the dtype in the file: float16, and ml_dtypes.bfloat16
    for bfloat16. Shapes are those of the file (torch: out, in, h, w).

    Args:
        path: path of the file.
        average: takes the moving average (EMA) of the weights, if it is stored in a part of its
            own; in the state dict of the weights it is left to projects.recognise.

    Raises:
        WeightsError: naming the file and the fix, for a file that cannot be opened, is damaged, or
            has something else than tensors and arrays in its state dict.
    """
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise WeightsError("the file is empty; download it again")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            budget = Budget.for_file(len(data))
            content = _read(Path(path), file, data, budget)
            name, notes = _part(content, average)
            state = content if name is None else content[name]
            if name in _AVERAGES:
                state = {key: value for key, value in state.items() if key not in _COUNTERS}
            arrays = _arrays(state, budget)
            return Contents(arrays, notes, *_about(content), name in _AVERAGES)
    except WeightsError as error:
        raise WeightsError(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        raise WeightsError(
            f"{os.fspath(path)}: cannot be read ({error.strerror}); pass the path of a checkpoint"
        ) from error


def _read(path: Path, file: object, data: mmap.mmap, budget: Budget) -> object:
    start = data[:512]
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        archive = open_zip(file)
        if any(name.endswith("/data.pkl") for name in archive.namelist()):
            return read_torch_zip(archive, budget)
        return read_npz(archive, budget)
    if start.startswith(LEGACY_PREFIX):
        return read_torch_legacy(data, budget)
    if is_safetensors(start, len(data)):
        return read_safetensors(path)
    if start[:1] in _PICKLE_STARTS:
        return whole_pickle(data, budget)
    if start[257:262] == b"ustar":
        raise WeightsError(
            "it is a tar file; unpack it. torch's own tar format (before 2017) is not supported: "
            "load it with torch and save it again"
        )
    raise WeightsError(
        f"begins with {bytes(start[:16])!r}: neither .npz, .safetensors, .pth nor .pkl; if it is a "
        "web page or a Git LFS pointer, the download did not return the file itself"
    )


def _part(content: object, average: bool) -> tuple[str | None, tuple[str, ...]]:
    """The key under which a checkpoint keeps its weights, None if it is a state dict; notes."""
    if not isinstance(content, dict):
        raise WeightsError(f"holds {_kind(content)}, not a state dict; save model.state_dict()")
    weights = [name for name in _WEIGHTS if isinstance(content.get(name), dict)]
    averages = [name for name in _AVERAGES if isinstance(content.get(name), dict)]
    if averages and (average or not weights):
        return averages[0], (f"loaded: the moving average (EMA) of the weights, {averages[0]!r}",)
    if averages:
        note = f"left out: the moving average (EMA) of the weights, {averages[0]!r}; --ema loads it"
        return weights[0], (note,)
    return (weights[0] if weights else None), ()


def _arrays(state: Mapping, budget: Budget) -> dict[str, np.ndarray]:
    arrays, wrong, tensors = {}, [], []
    for name, value in state.items():
        value = value.tensor if isinstance(value, ArrayStub) and value.tensor else value
        if type(name) is not str:
            wrong.append(f"a key of type {type(name).__name__}")
        elif isinstance(value, Tensor):
            tensors.append((value, name))
            arrays[name] = None
        elif isinstance(value, np.ndarray):
            arrays[name] = value
        elif type(value) in (int, float, bool) and abs(value) < 2**63:
            arrays[name] = np.asarray(value)
        else:
            wrong.append(f"{shown(name)} ({_kind(value)})")
    if wrong or not arrays:
        listed = ", ".join(wrong[:8]) + (f" and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise WeightsError(
            f"its state dict has entries that are not arrays: {listed}; save model.state_dict()"
            if wrong
            else "its state dict is empty; save model.state_dict()"
        )
    # By storage: it is read once for all of its tensors.
    for tensor, name in sorted(tensors, key=lambda pair: pair[0].storage.name):
        arrays[name] = to_array(tensor, shown(name), budget)
    return arrays


def _about(content: object) -> tuple[tuple[str, ...], str]:
    """Class names and author, where the checkpoint says so."""
    meta, author = content.get("meta"), content.get("__author__")
    meta = meta if isinstance(meta, dict) else {}
    dataset = meta.get("dataset_meta")
    dataset = dataset if isinstance(dataset, dict) else {}
    names = dataset.get("classes") or dataset.get("CLASSES") or meta.get("CLASSES")
    if not isinstance(names, list | tuple) or not all(type(name) is str for name in names):
        names = ()
    return tuple(names), author if type(author) is str else ""


def _kind(value: object) -> str:
    return shown(value.name) if isinstance(value, Inert) else f"a {type(value).__name__}"
