"""torch's file formats, read without torch: the zip format and the older one.

Layouts as torch.save writes them (torch/serialization.py): since 1.6 a zip file with `data.pkl` and
a record for each storage; before that a sequence of pickles, followed by the storages.
"""

import functools
import io
import mmap
import struct
import zipfile

from retinanet_jax.weights.pickle_constructors import DtypeStub, Inert
from retinanet_jax.weights.tensors import Budget, Storage
from retinanet_jax.weights.unpickler import Unpickler, whole_pickle
from retinanet_jax.weights.weights_error import WeightsError, shown
from retinanet_jax.weights.zip_records import read_record

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PREFIX = b"\x80\x02\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little") + b"."
_LEGACY_PROTOCOL = 1001
_BIG_ENDIAN = "the file was written big-endian; save it again on a little-endian machine"


def read_torch_zip(archive: zipfile.ZipFile, budget: Budget) -> object:
    """The object of a zip file that torch.save wrote, its tensors as `Tensor`."""
    names = set(archive.namelist())
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise WeightsError("the zip file has more than one data.pkl: torch.save did not write it")
    folder = pickles[0].split("/")[0]
    if any(name.startswith((f"{folder}/code/", f"{folder}/constants.pkl")) for name in names):
        raise WeightsError(
            "it is a TorchScript program, not a checkpoint; save its state_dict() with torch.save"
        )
    order = f"{folder}/byteorder"
    if order in names and read_record(archive, order, budget) != b"little":
        raise WeightsError(_BIG_ENDIAN)
    storages: dict[str, Storage] = {}

    # The latest alone: tensors that share a storage are read one after the other.
    @functools.lru_cache(maxsize=1)
    def read(key: str) -> bytes:
        record = f"{folder}/data/{key}"
        if record not in names or archive.getinfo(record).compress_type != zipfile.ZIP_STORED:
            raise WeightsError(
                f"storage {shown(key)} is missing or compressed: the file is damaged or was "
                "repacked; use the file that torch.save wrote"
            )
        return read_record(archive, record, budget)

    def persistent_load(saved_id: object) -> Storage | Inert:
        storage = _declared_storage(saved_id, 5)
        if isinstance(storage, Inert):
            return storage
        known = storages.setdefault(
            storage.name, storage._replace(read=functools.partial(read, storage.name))
        )
        return _same_storage(known, storage)

    pickled = io.BytesIO(read_record(archive, pickles[0], budget))
    return whole_pickle(pickled, budget, persistent_load=persistent_load)


def read_torch_legacy(file: mmap.mmap, budget: Budget) -> object:
    """The object of a file that torch.save wrote before 1.6 (or with the zip format off)."""
    storages: dict[str, Storage] = {}
    places: dict[str, int] = {}

    def read(key: str, first: int, count: int) -> memoryview:
        start = places[key] + first
        return memoryview(file)[start : start + count]

    def persistent_load(saved_id: object) -> Storage:
        storage = _declared_storage(saved_id, 6)
        if isinstance(storage, Inert):  # how many bytes it takes in the file is not known
            raise WeightsError(
                f"it has a storage of type {shown(storage.name)}; save the state dict alone"
            )
        key, item, numel = storage.name, storage.dtype.itemsize, storage.numel
        storage = storage._replace(read=functools.partial(read, key, 0, numel * item))
        storage = _same_storage(storages.setdefault(key, storage), storage)
        if saved_id[5] is None:
            return storage
        first, numel = _part(storage, saved_id[5])
        part = functools.partial(read, key, first * item, numel * item)
        return storage._replace(numel=numel, read=part)

    file.seek(len(LEGACY_PREFIX))
    if Unpickler(file, budget).load() != _LEGACY_PROTOCOL:
        raise WeightsError("its first lines are not those of torch.save: the file is damaged")
    system = Unpickler(file, budget).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError(_BIG_ENDIAN)
    result = Unpickler(file, budget, persistent_load).load()
    keys = Unpickler(file, budget).load()
    places.update(_places(file, keys, storages))
    return result


def _declared_storage(saved_id: object, length: int) -> Storage | Inert:
    # ('storage', type, key, device, number of elements[, view]): see torch.serialization.
    if not isinstance(saved_id, tuple) or len(saved_id) != length or saved_id[0] != "storage":
        raise WeightsError("a persistent id names no storage: the file is damaged")
    _, kind, key, _, numel = saved_id[:5]
    if type(key) is not str or type(numel) is not int or numel < 0:
        raise WeightsError(f"storage {shown(key)} has no usable key or size: the file is damaged")
    if not isinstance(kind, DtypeStub):
        return Inert(kind.name if isinstance(kind, Inert) else "an unknown type")
    return Storage(key, kind.dtype, numel, bytes)


def _same_storage(storage: Storage, declared: Storage) -> Storage:
    if (storage.dtype, storage.numel) != (declared.dtype, declared.numel):
        raise WeightsError(f"storage {shown(storage.name)} is declared in two ways: refused")
    return storage


def _part(storage: Storage, view: object) -> tuple[int, int]:
    # (key, offset, size) in elements: a storage that is a part of another one.
    if not isinstance(view, tuple) or len(view) != 3 or any(type(n) is not int for n in view[1:]):
        raise WeightsError(f"storage {shown(storage.name)} has a broken view: the file is damaged")
    _, offset, size = view
    if offset < 0 or size < 0 or offset + size > storage.numel:
        raise WeightsError(f"storage {shown(storage.name)} has a view that reaches outside of it")
    return offset, size


def _places(file: mmap.mmap, keys: object, storages: dict[str, Storage]) -> dict[str, int]:
    """Where the elements of each storage start.

    Behind the last pickle: for each key the number of elements (8 bytes), then the elements.
    """
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise WeightsError("the file's list of storages is broken: damaged; download it again")
    if sorted(keys) != sorted(storages):
        raise WeightsError("the file's storages are not those of its tensors: damaged")
    places = {}
    for key in keys:
        storage, count = storages[key], file.read(8)
        if len(count) != 8 or struct.unpack("<q", count)[0] != storage.numel:
            raise WeightsError(f"storage {shown(key)} does not have the size that its tensors need")
        places[key] = file.tell()
        size = storage.numel * storage.dtype.itemsize
        if size > len(file) - file.tell():
            raise WeightsError(
                f"storage {shown(key)} has {len(file) - file.tell()} bytes of {size}"
            )
        file.seek(size, 1)
    if extra := len(file) - file.tell():
        raise WeightsError(f"its storages are followed by {extra} bytes too many: damaged")
    return places
