"""Tensors of a checkpoint before they become arrays: storages, strided views and their limits.

A checkpoint is a file from a stranger. What it says of sizes, strides and offsets is checked
against the bytes that are really there before anything is allocated, and all that one file turns
into is charged to a `Budget`.
"""

import dataclasses
import math

import ml_dtypes
import numpy as np

from retinanet_jax.weights.weights_error import WeightsError, shown

MAX_DIMS = 32
# The product of the sizes of a tensor without elements, such as (0, 256, 3, 3).
_MAX_EMPTY_EXTENT = 2**31

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclasses.dataclass
class Budget:
    """The bytes that one file may still turn into, so that a small file cannot fill the memory.

    Attributes:
        left: bytes; starts at 8 times the file and 32 MiB. Real checkpoints need once the file,
            twice with tied weights; only deflated zeros and copies of copies come near.
    """

    left: int

    @classmethod
    def for_file(cls, file_size: int) -> "Budget":
        """The budget of a file of `file_size` bytes."""
        return cls(8 * file_size + 2**25)

    def charge(self, num_bytes: int, what: str) -> None:
        """Takes `num_bytes`; raises WeightsError when the file grows out of all proportion."""
        self.left -= num_bytes
        if self.left < 0:
            raise WeightsError(
                f"{what} would grow the file to more than 8 times its size: refused, it looks like"
                " a decompression bomb; save each array uncompressed, once, and not expanded"
            )


@dataclasses.dataclass(eq=False)
class Storage:
    """A flat run of numbers in the file, which one or more tensors look at.

    Attributes:
        name: its key in the file, or how messages call it.
        dtype: of its elements, byte order included.
        numel: number of elements that the file declares.
        data: its bytes; None while they have not been found in the file.
    """

    name: str
    dtype: np.dtype
    numel: int
    data: bytes | bytearray | memoryview | None = None

    @property
    def label(self) -> str:
        """The name, safe and short enough for a message."""
        return shown(self.name)

    def attach(self, data: bytes | bytearray | memoryview) -> None:
        """Gives the storage its bytes; raises WeightsError unless they are as many as declared."""
        expected = self.numel * self.dtype.itemsize
        if len(data) != expected:
            raise WeightsError(
                f"storage {self.label} declares {self.numel} x {self.dtype} = {expected} bytes and"
                f" has {len(data)}: the file is damaged; get it again"
            )
        self.data = data


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage; offset and stride count elements, as torch counts them."""

    storage: Storage
    offset: int
    shape: tuple
    stride: tuple


def checked_tensor(storage: Storage, offset: object, shape: object, stride: object) -> Tensor:
    """The view, after making sure that it stays inside of its storage.

    Raises WeightsError for anything but non-negative integers, for more than 32 axes and for a
    view that reaches outside of the storage. An axis of stride 0 may repeat elements (torch's
    expand); how much that grows the file is for `to_array` to judge.
    """
    shape, stride = _sizes(storage, "shape", shape), _sizes(storage, "stride", stride)
    if len(shape) != len(stride) or type(offset) is not int or offset < 0:
        raise WeightsError(f"a tensor of storage {storage.label} has a broken offset or stride")
    _check_extent(storage, offset, shape, stride)
    # An axis of one element may carry any stride; numpy takes only those that fit a machine word.
    return Tensor(
        storage, offset, shape, tuple(t if d > 1 else 0 for d, t in zip(shape, stride, strict=True))
    )


def contiguous_tensor(storage: Storage, shape: object, *, fortran: bool = False) -> Tensor:
    """The whole storage as an array of `shape`, rows first or (`fortran`) columns first.

    Raises WeightsError unless the shape has exactly as many elements as the storage.
    """
    shape = _sizes(storage, "shape", shape)
    if math.prod(shape) != storage.numel:
        raise WeightsError(f"{storage.label}: shape {shape} is not {storage.numel} elements")
    order = shape if fortran else shape[::-1]
    stride = [math.prod(order[:axis]) for axis in range(len(order))]
    return checked_tensor(storage, 0, shape, tuple(stride if fortran else stride[::-1]))


def to_array(tensor: Tensor, name: str, budget: Budget) -> np.ndarray:
    """A new, writable, C-contiguous array in native byte order, of the dtype in the file."""
    storage = tensor.storage
    if storage.data is None:
        raise WeightsError(f"{name}: the file holds no data for storage {storage.label}")
    native = storage.dtype.newbyteorder("=")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, native)
    budget.charge(math.prod(tensor.shape) * native.itemsize, name)
    # A byte that is neither 0 nor 1 is no valid numpy bool.
    stored = np.dtype(np.uint8) if native == np.bool_ else storage.dtype
    flat = np.frombuffer(storage.data, dtype=stored)[tensor.offset :]
    strides = [stride * stored.itemsize for stride in tensor.stride]
    view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
    return view != 0 if native == np.bool_ else np.array(view, dtype=native, order="C")


def _sizes(storage: Storage, field: str, sizes: object) -> tuple:
    if not isinstance(sizes, tuple | list) or len(sizes) > MAX_DIMS:
        raise WeightsError(f"a tensor of storage {storage.label} has no usable {field}")
    if any(type(size) is not int or size < 0 for size in sizes):
        raise WeightsError(f"a tensor of storage {storage.label} has a {field} that is negative")
    return tuple(sizes)


def _check_extent(storage: Storage, offset: int, shape: tuple, stride: tuple) -> None:
    if 0 in shape:
        if math.prod(max(size, 1) for size in shape) > _MAX_EMPTY_EXTENT:
            raise WeightsError(f"a tensor of storage {storage.label} has an absurd shape: refused")
        return
    reach = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if reach >= storage.numel:
        raise WeightsError(
            f"a tensor reaches element {reach} of storage {storage.label}, which has"
            f" {storage.numel}: the file is damaged; get it again"
        )
