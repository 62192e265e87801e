"""Reads pickles without importing or running anything that they name.

Python's unpickler asks `find_class` for every name in the file. Here a name is one of the few
constructors of tensors and arrays at the end of this module, or an `Inert` object, which can be
called, filled and changed without any effect. So whole training checkpoints open (optimizer states,
argparse.Namespace, mmengine's HistoryBuffer), and nothing in them runs.

The base class is the unpickler of Python's pickle module that is written in Python: the one in C
does the same, but offers no hook between a key and its dictionary.
"""

import io
import mmap
import pickle
import pickletools
from collections.abc import Callable
from typing import ClassVar

import ml_dtypes
import numpy as np

from retinanet_jax.weights.tensors import Budget, Storage, Tensor, contiguous
from retinanet_jax.weights.weights_error import WeightsError, shown

# Upper bound for the memory of what one opcode makes; an empty set takes 216 bytes.
_BYTES_PER_OPCODE = 256
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
    """A name that stands for one of the constructors of this module."""

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


class Unpickler(pickle._Unpickler):
    """Reads one pickle; see the module.

    Args:
        file: positioned at the start of the pickle.
        budget: charged for what the pickle builds.
        persistent_load: from a persistent id to an object; by default an inert one.
    """

    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)

    def __init__(
        self,
        file: io.BytesIO | mmap.mmap,
        budget: Budget,
        persistent_load: Callable[[object], object] | None = None,
    ):
        super().__init__(file, encoding="latin1")  # texts of Python 2
        self._file, self._budget = file, budget
        self._persistent_load = persistent_load
        methods = {
            ("collections", "OrderedDict"): self._ordered_dict,
            ("_codecs", "encode"): self._encode,
        }
        self._constructors = CONSTRUCTORS | methods

    def load(self) -> object:
        """The object; the file is left behind the pickle.

        Raises:
            WeightsError: the pickle is damaged, or asks for too much memory.
        """
        try:
            start = self._file.tell()
            end = self._scan()
            self._file.seek(start)
            result = super().load()
            self._file.seek(end)
            return result
        except WeightsError:
            raise
        except Exception as error:  # of a damaged pickle: nearly any, says Python's documentation
            raise WeightsError(
                f"the pickle is damaged or cut short ({type(error).__name__}: "
                f"{shown(error)}); get the file again"
            ) from error

    def find_class(self, module: str, name: str) -> Inert:
        """What stands for a global name; nothing is imported."""
        found = self._constructors.get((module, name))
        full = f"{module}.{name}"
        if found is None:
            return Inert(full)
        return DtypeStub(full, found) if isinstance(found, np.dtype) else Known(full, found)

    def persistent_load(self, saved_id: object) -> object:
        """What stands for a persistent id."""
        return self._persistent_load(saved_id) if self._persistent_load else Inert("persistent id")

    def get_extension(self, code: int) -> None:
        """A class registered with copyreg, which would bypass `find_class`."""
        self.append(Inert(f"copyreg extension {code}"))

    def _scan(self) -> int:
        """Reads over the pickle; returns where it ends.

        pickletools compares every length with the bytes that are left, which the unpickler does
        not before it allocates them.
        """
        for opcode, argument, _ in pickletools.genops(self._file):
            self._budget.charge(_BYTES_PER_OPCODE, "its pickle, which has very many parts,")
            if opcode.name in ("PUT", "GET") and not 0 <= argument < 2**32:
                raise WeightsError("the pickle has a broken index: the file is damaged")
        return self._file.tell()

    def _ordered_dict(self, items: object = ()) -> Mapping:
        # Python 2 gives the items at once, as a list of pairs; Python 3 sets them afterwards.
        self._budget.charge(128 * len(items), "an OrderedDict")
        result = Mapping()
        for key, value in items:
            result[_safe_key(key)] = value
        return result

    def _encode(self, text: str, encoding: str) -> object:
        # How Python 3 writes bytes in protocol 2.
        if encoding not in ("latin1", "latin-1"):
            return Inert(f"_codecs.encode({shown(encoding)})")
        self._budget.charge(len(text), "the bytes of an array")
        return text.encode("latin-1")

    def _load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.stack[-1](*arguments)

    def _load_newobj_ex(self) -> None:
        named = self.stack.pop()
        arguments = self.stack.pop()
        self.stack[-1] = self.stack[-1](*arguments, **named)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_safe_key(key)] = value

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        self._set_items(items)

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _set_items(self, items: list) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_safe_key(key)] = value

    def _load_empty_set(self) -> None:
        self.append(Inert("set"))

    def _load_frozenset(self) -> None:
        self.pop_mark()
        self.append(Inert("frozenset"))

    for _opcode, _load in (
        (pickle.NEWOBJ, _load_newobj),
        (pickle.NEWOBJ_EX, _load_newobj_ex),
        (pickle.SETITEM, _load_setitem),
        (pickle.SETITEMS, _load_setitems),
        (pickle.DICT, _load_dict),
        (pickle.EMPTY_SET, _load_empty_set),
        (pickle.FROZENSET, _load_frozenset),
    ):
        dispatch[_opcode[0]] = _load


def whole_pickle(file: io.BytesIO | mmap.mmap, budget: Budget, **options: Callable) -> object:
    """The object of a pickle that takes all of a file."""
    result = Unpickler(file, budget, **options).load()
    if extra := len(file.read()):
        raise WeightsError(f"{extra} bytes follow the end of its pickle: refused")
    return result


def _safe_key(key: object) -> object:
    """The key, if its hash is random or it has few equals in hash; else an inert object.

    Thousands of tuples or large integers with one hash make a dictionary quadratic, and the hash of
    tuples of tuples can take exponential time.
    """
    if type(key) is int and key.bit_length() <= 63:
        return key
    if type(key) in (str, bytes, float, bool, type(None)):
        return key
    return Inert(f"key of type {type(key).__name__}")


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
