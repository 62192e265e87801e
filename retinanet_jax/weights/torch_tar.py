"""torch's first file format (until 2017): a tar file with the members storages, tensors, pickle."""

import mmap
from typing import Any

from retinanet_jax.weights.constructors import StorageType
from retinanet_jax.weights.tensors import Budget, Storage, Tensor, checked_tensor
from retinanet_jax.weights.unpickler import Unpickler
from retinanet_jax.weights.weights_error import WeightsError, shown

_BLOCK = 512
_MAX_MEMBERS = 64
_MAX_OBJECTS = 100_000
_MEMBERS = ("storages", "tensors", "pickle")
_EXTENDED_HEADERS = (b"x", b"g")


def is_tar(data: mmap.mmap) -> bool:
    """Whether the file is a tar file (POSIX ustar, the only kind that torch wrote)."""
    return data[257:262] == b"ustar"


def read_torch_tar(data: mmap.mmap, budget: Budget) -> object:
    """The object of the tar file, its tensors as `Tensor`; raises WeightsError if damaged."""
    members = _members(data)
    missing = [name for name in _MEMBERS if name not in members]
    if missing:
        raise WeightsError(f"this tar file is not torch's (no {missing[0]}): unpack it first")
    objects: dict[int, Storage | Tensor] = {}
    for name, read in (("storages", _read_storages), ("tensors", _read_tensors)):
        start, end = members[name]
        read(Unpickler(data, budget, start=start, end=end), objects)
    start, end = members["pickle"]

    def persistent_load(saved_id: object) -> object:
        is_key = type(saved_id) is str and saved_id.isascii() and saved_id.isdigit()
        return _entry(objects, int(saved_id[:20]) if is_key else None, Storage | Tensor)

    return Unpickler(data, budget, start=start, end=end, persistent_load=persistent_load).load()


def _members(data: mmap.mmap) -> dict[str, tuple[int, int]]:
    members, position = {}, 0
    for _ in range(_MAX_MEMBERS):
        header = data[position : position + _BLOCK]
        if len(header) < _BLOCK or not header.strip(b"\0"):
            break
        start, size = position + _BLOCK, _octal(header[124:136])
        if start + size > len(data):
            raise WeightsError("a member of the tar file is cut off: get the file again")
        if header[156:157] not in _EXTENDED_HEADERS:
            members[header[:100].rstrip(b"\0").decode("latin-1")] = (start, start + size)
        position = start + -(-size // _BLOCK) * _BLOCK
    return members


def _octal(field: bytes) -> int:
    digits = field.strip(b"\0 ")
    if not digits or digits.strip(b"01234567"):
        raise WeightsError("a size in the tar file is broken: the file is damaged")
    return int(digits, 8)


def _count(reader: Unpickler) -> int:
    count = reader.load()
    if type(count) is not int or not 0 <= count <= _MAX_OBJECTS:
        raise WeightsError("the tar file has no usable number of tensors: the file is damaged")
    return count


def _triple(reader: Unpickler) -> tuple:
    value = reader.load()
    if not isinstance(value, tuple) or len(value) != 3 or type(value[0]) is not int:
        raise WeightsError("a storage or tensor of the tar file is broken: the file is damaged")
    return value


def _read_storages(reader: Unpickler, objects: dict[int, Storage | Tensor]) -> None:
    # A count; for each a pickled (key, device, type), the number of elements, the elements.
    for _ in range(_count(reader)):
        key, _, kind = _triple(reader)
        if not isinstance(kind, StorageType):
            raise WeightsError("a storage of the tar file has no type that is known: refused")
        numel = reader.number("<q")
        objects[key] = Storage(shown(str(key)), kind.dtype, numel)
        objects[key].attach(reader.take(numel * kind.dtype.itemsize))
    if reader.load() != []:
        raise WeightsError("the tar file has views of storages: load it with torch, save it again")


def _read_tensors(reader: Unpickler, objects: dict[int, Storage | Tensor]) -> None:
    # A count; for each a pickled (key, key of the storage, type), ndim, shape, stride, offset.
    for _ in range(_count(reader)):
        key, storage_key, _ = _triple(reader)
        storage = _entry(objects, storage_key, Storage)
        ndim = reader.number("<q") & 0xFFFFFFFF  # 4 bytes and 4 unused ones
        shape = tuple(reader.number("<q") for _ in range(min(ndim, 64)))
        stride = tuple(reader.number("<q") for _ in range(min(ndim, 64)))
        objects[key] = checked_tensor(storage, reader.number("<q"), shape, stride)


def _entry(objects: dict[int, Storage | Tensor], key: object, kind: Any) -> Storage | Tensor:
    found = objects.get(key) if type(key) is int else None
    if not isinstance(found, kind):
        raise WeightsError("the file refers to a storage or tensor that it does not have")
    return found
