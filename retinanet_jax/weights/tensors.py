"""Tensors of a checkpoint before they become arrays: storages and strided views of them.

What a file declares (sizes, strides, offsets) is compared with the bytes it really has before
anything is allocated. A `Budget` limits what one file may grow to.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from retinanet_jax.weights.weights_error import WeightsError, shown

# The product of the sizes of a tensor without elements, such as (0, 256, 3, 3).
_MAX_EMPTY_EXTENT = 2**31


@dataclasses.dataclass
class Budget:
    """The bytes that one file may still expand to; a small file must not fill the memory.

    Attributes:
        left: bytes. Starts at 8 times the file plus 32 MiB. A real checkpoint needs its own size,
            twice that with tied weights.
    """

    left: int

    @classmethod
    def for_file(cls, file_size: int) -> "Budget":
        """The budget of a file of `file_size` bytes."""
        return cls(8 * file_size + 2**25)

    def charge(self, num_bytes: int, what: str) -> None:
        """Subtracts `num_bytes`; raises WeightsError when the budget is exceeded."""
        self.left -= num_bytes
        if self.left < 0:
            raise WeightsError(
                f"{what} would expand the file to over 8 times its size, like a decompression "
                "bomb: refused. Save each array once, uncompressed and not expanded"
            )


# Named tuples: a pickle can change the attributes of most other objects (opcode BUILD).
class Storage(NamedTuple):
    """A flat run of numbers in the file that one or more tensors view.

    Attributes:
        name: key of the storage in the file, or a description for messages.
        dtype: type of its elements, including the byte order.
        numel: the number of elements that the file declares.
        read: returns its bytes.
    """

    name: str
    dtype: np.dtype
    numel: int
    read: Callable[[], bytes | bytearray | memoryview]


class Tensor(NamedTuple):
    """A view of a storage as the file declares it; offset and stride count elements."""

    storage: Storage
    offset: object
    shape: object
    stride: object


def contiguous(storage: Storage, shape: object, *, fortran: bool = False) -> Tensor:
    """The whole storage as a tensor of `shape`, in C or Fortran order."""
    sizes = _sizes(storage, "shape", shape)
    if math.prod(sizes) != storage.numel:
        raise WeightsError(f"{shown(storage.name)}: shape {sizes} is not {storage.numel} elements")
    order = sizes if fortran else sizes[::-1]
    stride = [math.prod(order[:axis]) for axis in range(len(order))]
    return Tensor(storage, 0, sizes, tuple(stride if fortran else stride[::-1]))


def to_array(tensor: Tensor, name: str, budget: Budget) -> np.ndarray:
    """A new, writable, C-contiguous array in native byte order, of the dtype in the file.

    Raises:
        WeightsError: the view reaches outside of its storage, has negative or too many sizes, or
            the storage has another size than declared.
    """
    storage, offset = tensor.storage, tensor.offset
    shape, stride = _sizes(storage, "shape", tensor.shape), _sizes(storage, "stride", tensor.stride)
    if len(shape) != len(stride) or type(offset) is not int or offset < 0:
        raise WeightsError(f"a tensor of storage {shown(storage.name)} has a broken offset")
    _check_extent(storage, offset, shape, stride)
    native = storage.dtype.newbyteorder("=")
    if 0 in shape:
        return np.zeros(shape, native)
    budget.charge(math.prod(shape) * native.itemsize, name)
    # A byte other than 0 and 1 is no valid numpy bool.
    stored = np.dtype(np.uint8) if native == np.bool_ else storage.dtype
    flat = np.frombuffer(_whole(storage), dtype=stored)[offset:]
    # An axis of one element may have any stride; numpy takes those that fit a machine word.
    pairs = zip(shape, stride, strict=True)
    strides = [step * stored.itemsize if size > 1 else 0 for size, step in pairs]
    view = np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)
    return view != 0 if native == np.bool_ else np.array(view, dtype=native, order="C")


def _whole(storage: Storage) -> bytes | bytearray | memoryview:
    data, expected = storage.read(), storage.numel * storage.dtype.itemsize
    if len(data) != expected:
        raise WeightsError(
            f"storage {shown(storage.name)} declares {storage.numel} x {storage.dtype} = {expected}"
            f" bytes and has {len(data)}: the file is damaged; download it again"
        )
    return data


def _sizes(storage: Storage, field: str, sizes: object) -> tuple[int, ...]:
    if not isinstance(sizes, tuple | list) or len(sizes) > 32:
        raise WeightsError(f"a tensor of storage {shown(storage.name)} has no usable {field}")
    if any(type(size) is not int or size < 0 for size in sizes):
        raise WeightsError(f"a tensor of storage {shown(storage.name)} has a negative {field}")
    return tuple(sizes)


def _check_extent(storage: Storage, offset: int, shape: tuple, stride: tuple) -> None:
    if 0 in shape:
        if math.prod(max(size, 1) for size in shape) > _MAX_EMPTY_EXTENT:
            raise WeightsError(f"a tensor of storage {shown(storage.name)} has an absurd shape")
        return
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if last >= storage.numel:
        raise WeightsError(
            f"a tensor reaches element {last} of storage {shown(storage.name)}, which has "
            f"{storage.numel}: the file is damaged; download it again"
        )
