"""The names that a checkpoint's pickle may use, and what each of them builds here.

None of them is the function of that name: torch is not needed, numpy's own constructors are not
called. They build `Tensor` views of the file's bytes, which are checked there and then.
"""

import dataclasses

import numpy as np

from retinanet_jax.weights.pickle_machine import Buildable, Constructor
from retinanet_jax.weights.tensors import (
    BFLOAT16,
    Budget,
    Storage,
    Tensor,
    checked_tensor,
    contiguous_tensor,
)
from retinanet_jax.weights.weights_error import WeightsError

TORCH_DTYPES = {
    "Float": np.dtype("<f4"),
    "Double": np.dtype("<f8"),
    "Half": np.dtype("<f2"),
    "BFloat16": BFLOAT16,
    "Long": np.dtype("<i8"),
    "Int": np.dtype("<i4"),
    "Short": np.dtype("<i2"),
    "Char": np.dtype("i1"),
    "Byte": np.dtype("u1"),
    "Bool": np.dtype("?"),
}
NUMPY_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class StorageType(Constructor):
    """The class of a torch storage, such as torch.FloatStorage: it stands for a dtype."""

    def __init__(self, name: str, dtype: np.dtype):
        super().__init__(name)
        self.dtype = dtype


@dataclasses.dataclass(eq=False)
class ArrayType(Buildable):
    """A numpy dtype of a pickle; its byte order comes with the state."""

    dtype: np.dtype

    def set_state(self, state: object, budget: Budget) -> None:
        """State: (version, byte order, None (subarray), None (names), None (fields), ...)."""
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise WeightsError("a numpy dtype has fields; arrays of plain numbers are read only")
        if state[1] not in ("<", ">", "|", "="):
            raise WeightsError("a numpy dtype has a broken byte order: the file is damaged")
        self.dtype = self.dtype.newbyteorder(state[1])


@dataclasses.dataclass(eq=False)
class PendingArray(Buildable):
    """A numpy array of a pickle; `tensor` is None until the state has come."""

    tensor: Tensor | None = None

    def set_state(self, state: object, budget: Budget) -> None:
        """State: (version, shape, dtype, columns first, the bytes)."""
        if self.tensor is not None or not isinstance(state, tuple) or len(state) != 5:
            raise WeightsError("a numpy array has a broken state: the file is damaged")
        _, shape, dtype, fortran, raw = state
        self.tensor = _array(raw, dtype, shape, fortran is True, budget)


def _array(raw: object, dtype: object, shape: object, fortran: bool, budget: Budget) -> Tensor:
    if not isinstance(dtype, ArrayType):
        raise WeightsError("a numpy array has no dtype of plain numbers")
    if isinstance(raw, str):
        raw = _encoded(raw, budget)
    if not isinstance(raw, bytes):
        raise WeightsError(f"a numpy array has a {type(raw).__name__} for its bytes: refused")
    storage = Storage("of a numpy array", dtype.dtype, len(raw) // dtype.dtype.itemsize)
    storage.attach(raw)
    return contiguous_tensor(storage, shape, fortran=fortran)


def _encoded(text: str, budget: Budget) -> bytes:
    budget.charge(len(text), "the bytes of an array")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise WeightsError("the bytes of an array are no latin-1 text: file damaged") from error


def _encode(arguments: tuple, budget: Budget) -> bytes:
    if not _typed(arguments, str, str) or arguments[1] not in ("latin1", "latin-1"):
        raise WeightsError("_codecs.encode is known for latin-1 texts only: refused")
    return _encoded(arguments[0], budget)


def _empty_bytes(arguments: tuple, budget: Budget) -> bytes:
    # How Python 3 writes b"" in protocol 2: the data of an array without elements.
    if arguments:
        raise WeightsError("bytes() is known without arguments only: refused")
    return b""


def _typed(arguments: tuple, *kinds: type) -> bool:
    return len(arguments) == len(kinds) and all(map(isinstance, arguments, kinds))


def _dtype(arguments: tuple, budget: Budget) -> ArrayType:
    code = arguments[0] if arguments else None
    if len(arguments) > 3 or type(code) is not str or code not in NUMPY_CODES:
        raise WeightsError(
            f"a numpy dtype is not one of {', '.join(NUMPY_CODES)}: refused; save plain numbers"
        )
    return ArrayType(np.dtype(code))


def _reconstruct(arguments: tuple, budget: Budget) -> PendingArray:
    first = arguments[0] if len(arguments) == 3 else None
    if not isinstance(first, Constructor) or first.name != "numpy.ndarray":
        raise WeightsError("numpy's _reconstruct is called for something that is no ndarray")
    return PendingArray()


def _from_buffer(arguments: tuple, budget: Budget) -> PendingArray:
    if len(arguments) != 4 or arguments[3] not in ("C", "F"):
        raise WeightsError("numpy's _frombuffer has broken arguments: the file is damaged")
    raw, dtype, shape, order = arguments
    return PendingArray(_array(raw, dtype, shape, order == "F", budget))


def _scalar(arguments: tuple, budget: Budget) -> PendingArray:
    if len(arguments) != 2:
        raise WeightsError("a numpy scalar has broken arguments: the file is damaged")
    return PendingArray(_array(arguments[1], arguments[0], (), False, budget))


def _tensor(arguments: tuple, budget: Budget) -> Tensor:
    # (storage, offset, size, stride, requires_grad, hooks, metadata); version 1 stops at stride.
    if not 4 <= len(arguments) <= 7 or not isinstance(arguments[0], Storage):
        raise WeightsError("a torch tensor has broken arguments: the file is damaged")
    if arguments[6:] not in ((), (None,), ({},)):
        raise WeightsError("a torch tensor is a negated or conjugate view: save it .clone()d")
    return checked_tensor(*arguments[:4])


def _parameter(arguments: tuple, budget: Budget) -> Tensor:
    # (data, requires_grad, hooks[, attributes]): only the numbers matter here.
    if len(arguments) not in (3, 4) or not isinstance(arguments[0], Tensor):
        raise WeightsError("a torch parameter has broken arguments: the file is damaged")
    return arguments[0]


def _size(arguments: tuple, budget: Budget) -> tuple:
    if not _typed(arguments, tuple):
        raise WeightsError("a torch.Size has broken arguments: the file is damaged")
    return arguments[0]


def _ordered_dict(arguments: tuple, budget: Budget) -> dict:
    # Python 2 gives the items at once, as a list of [key, value]; Python 3 sets them afterwards.
    items = arguments[0] if arguments else []
    if len(arguments) > 1 or not isinstance(items, list):
        raise WeightsError("an OrderedDict has broken arguments: the file is damaged")
    budget.charge(128 * len(items), "an OrderedDict")
    result = {}
    for item in items:
        if not isinstance(item, list | tuple) or len(item) != 2 or type(item[0]) is not str:
            raise WeightsError("an OrderedDict has an item that is no pair of a text and a value")
        result[item[0]] = item[1]
    return result


def _table() -> dict[tuple[str, str], Constructor]:
    builders = {
        ("collections", "OrderedDict"): _ordered_dict,
        ("torch", "Size"): _size,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        ("_codecs", "encode"): _encode,
        ("__builtin__", "bytes"): _empty_bytes,
        ("builtins", "bytes"): _empty_bytes,
        ("numpy", "dtype"): _dtype,
        ("numpy", "ndarray"): None,
    }
    # The modules moved under numpy._core with numpy 2.
    for core in ("numpy.core", "numpy._core"):
        builders[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        builders[f"{core}.multiarray", "scalar"] = _scalar
        builders[f"{core}.numeric", "_frombuffer"] = _from_buffer
    table = {key: Constructor(".".join(key), build) for key, build in builders.items()}
    for kind, dtype in TORCH_DTYPES.items():
        table["torch", f"{kind}Storage"] = StorageType(f"torch.{kind}Storage", dtype)
        # Only the tar layout of 2016 mentions the classes of tensors, which say nothing new.
        table["torch", f"{kind}Tensor"] = Constructor(f"torch.{kind}Tensor")
    return table


CONSTRUCTORS = _table()
