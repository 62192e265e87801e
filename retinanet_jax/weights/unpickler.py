"""Reads pickles without importing or running anything that they name.

Python's unpickler asks `find_class` for every name in the file. Here a name is one of the few
constructors of tensors and arrays (pickle_constructors.py), or an `Inert` object, which can be
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

import numpy as np

from retinanet_jax.weights.pickle_constructors import (
    CONSTRUCTORS,
    DtypeStub,
    Inert,
    Known,
    Mapping,
)
from retinanet_jax.weights.tensors import Budget
from retinanet_jax.weights.weights_error import WeightsError, shown

# Upper bound for the memory of what one opcode makes; an empty set takes 216 bytes.
_BYTES_PER_OPCODE = 256


class Unpickler(pickle._Unpickler):
    """Reads one pickle; see the module.

    Args:
        file: positioned at the start of the pickle.
        budget: charged for what the pickle builds.
        persistent_load: function from a persistent id to an object; by default an inert one.
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
        except Exception as error:  # a damaged pickle may raise nearly any
            raise WeightsError(
                f"the pickle is damaged or cut short ({type(error).__name__}: "
                f"{shown(error)}); download it again"
            ) from error

    def find_class(self, module: str, name: str) -> Inert:
        """Replacement for a global name; nothing is imported."""
        found = self._constructors.get((module, name))
        full = f"{module}.{name}"
        if found is None:
            return Inert(full)
        return DtypeStub(full, found) if isinstance(found, np.dtype) else Known(full, found)

    def persistent_load(self, saved_id: object) -> object:
        """Replacement for a persistent id."""
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
