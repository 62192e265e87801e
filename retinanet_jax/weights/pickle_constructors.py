"""Replacements for the names in a pickle: inert objects, and constructors of tensors and arrays.

None of them is the class or function of that name: nothing is imported for a pickle. Each defines
__setstate__, without which the unpickler would set attributes of it.
"""

from collections.abc import Callable

import ml_dtypes
import numpy as np

from retinanet_jax.weights.tensors import Storage, Tensor, contiguous
from retinanet_jax.weights.weights_error import WeightsError, shown

_NUMPY_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class Inert:
    """Stands for an object of an unknown class, or for the class; ignores what is done to it."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *arguments: object, **named: object) -> object:
        """An object of the class, or the result of the function: inert as well."""
        return self

    def __setstate__(self, state: object) -> None:
        """Ignores the state; without this method the unpickler would set attributes."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignores an item."""

    def append(self, value: object) -> None:
        """Ignores an element."""

    add = update = extend = append


class Known(Inert):
    """A name in a pickle that maps to a constructor of this module."""

    __slots__ = ("build",)

    def __init__(self, name: str, build: Callable):
        super().__init__(name)
        self.build = build

    def __call__(self, *arguments: object) -> object:
        """What the constructor builds."""
        return self.build(*arguments)


class DtypeStub(Inert):
    """A dtype: of a torch storage class, or of numpy, whose byte order comes with the state."""

    __slots__ = ("dtype",)

    def __init__(self, name: str, dtype: np.dtype):
        super().__init__(name)
        self.dtype = dtype

    def __setstate__(self, state: object) -> None:
        """State of numpy: (version, byte order, subarray, names, fields, ...)."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise WeightsError("a numpy dtype has a broken state: the file is damaged")
        self.dtype = self.dtype.newbyteorder(state[1])


class ArrayStub(Inert):
    """A numpy array; `tensor` is None until its state is set, or if it holds other objects."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor | None = None):
        super().__init__("numpy array of objects or of a special dtype")
        self.tensor = tensor

    def __setstate__(self, state: object) -> None:
        """State: (version, shape, dtype, Fortran order, bytes)."""
        _, shape, dtype, fortran, raw = state
        self.tensor = _array_tensor(raw, dtype, shape, fortran is True)


class Mapping(dict):
    """An OrderedDict or defaultdict; torch sets an attribute, _metadata, on a state dict."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignores the attributes."""


def _array_tensor(raw: object, dtype: object, shape: object, fortran: bool) -> Tensor | None:
    """None for arrays of objects, and of dtypes other than plain numbers."""
    if not isinstance(raw, bytes | bytearray | str) or not isinstance(dtype, DtypeStub):
        return None
    size, extra = divmod(len(raw), dtype.dtype.itemsize)
    if extra:
        raise WeightsError(f"a numpy array of {dtype.dtype} has {len(raw)} bytes: damaged")

    def read() -> bytes | bytearray:
        return raw.encode("latin-1") if isinstance(raw, str) else raw  # str: of Python 2

    return contiguous(Storage("of a numpy array", dtype.dtype, size, read), shape, fortran=fortran)


def _reconstruct(*_: object) -> ArrayStub:
    return ArrayStub()


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> ArrayStub:
    return ArrayStub(_array_tensor(raw, dtype, shape, order == "F"))


def _scalar(dtype: object, raw: object) -> ArrayStub:
    return ArrayStub(_array_tensor(raw, dtype, (), False))


def _numpy_dtype(code: object, *_: object) -> Inert:
    if type(code) is str and code in _NUMPY_CODES:
        return DtypeStub("numpy dtype", np.dtype(code))
    return Inert(f"numpy dtype {shown(code)}")


def _tensor(storage: object, offset: object, shape: object, stride: object, *rest: object):
    # rest: requires_grad, hooks, and flags of negated and conjugate views
    if not isinstance(storage, Storage) or rest[2:] not in ((), (None,), ({},)):
        return Inert("negated or conjugate view, or tensor of an unknown dtype")
    return Tensor(storage, offset, shape, stride)


def _parameter(data: object, *_: object) -> object:
    return data


def _tensor_of_type(function: object, kind: object, arguments: object, state: object) -> object:
    return function(*arguments) if isinstance(function, Known) else Inert("tensor subclass")


def _bytes(*arguments: object) -> object:
    return Inert("bytes") if arguments else b""  # how Python 3 writes b"" in protocol 2


def _torch_size(sizes: object = ()) -> object:
    return sizes


def _mapping(*_: object) -> Mapping:
    return Mapping()


CONSTRUCTORS: dict[tuple[str, str], Callable | np.dtype] = {
    ("collections", "defaultdict"): _mapping,
    ("__builtin__", "bytes"): _bytes,
    ("builtins", "bytes"): _bytes,
    ("numpy", "dtype"): _numpy_dtype,
    ("torch", "Size"): _torch_size,
    ("torch.storage", "UntypedStorage"): np.dtype("u1"),
    ("torch._tensor", "_rebuild_from_type_v2"): _tensor_of_type,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    CONSTRUCTORS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    CONSTRUCTORS[f"{_core}.multiarray", "scalar"] = _scalar
    CONSTRUCTORS[f"{_core}.numeric", "_frombuffer"] = _from_buffer
for _kind, _dtype in (
    ("Float", "<f4"),
    ("Double", "<f8"),
    ("Half", "<f2"),
    ("BFloat16", ml_dtypes.bfloat16),
    ("Long", "<i8"),
    ("Int", "<i4"),
    ("Short", "<i2"),
    ("Char", "i1"),
    ("Byte", "u1"),
    ("Bool", "?"),
    ("ComplexFloat", "<c8"),
    ("ComplexDouble", "<c16"),
):
    CONSTRUCTORS["torch", f"{_kind}Storage"] = np.dtype(_dtype)
