"""torch's file formats, without torch: the zip file of today and the one before it.

Layouts as written by torch.save (torch/serialization.py): a zip file with `data.pkl` and one
record per storage (since 1.6); before that a row of pickles followed by the storages. The tar files
of 2016 are read by `torch_tar.py`.
"""

import mmap
from collections.abc import Mapping

from retinanet_jax.weights.constructors import StorageType
from retinanet_jax.weights.tensors import Budget, Storage
from retinanet_jax.weights.unpickler import Unpickler
from retinanet_jax.weights.weights_error import WeightsError, shown
from retinanet_jax.weights.zip_records import Record, contents

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PREFIX = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little") + b"."
_LEGACY_PROTOCOL = 1001


def read_torch_zip(data: mmap.mmap, records: Mapping[str, Record], budget: Budget) -> object:
    """The object of a zip file that torch.save wrote, its tensors as `Tensor`."""
    folder = _archive_folder(records)
    if any(name.startswith((f"{folder}/code/", f"{folder}/constants.pkl")) for name in records):
        raise WeightsError(
            "this is a TorchScript program, not a checkpoint: save its state_dict() with torch.save"
        )
    order = records.get(f"{folder}/byteorder")
    if order and bytes(contents(data, order, budget)) != b"little":
        raise WeightsError("the file was written big-endian: save it again on a usual machine")
    storages: dict[str, Storage] = {}

    def persistent_load(saved_id: object) -> Storage:
        storage = _declared_storage(saved_id, 5)
        if storage.name not in storages:
            record = records.get(f"{folder}/data/{storage.name}")
            if record is None or record.deflated:
                raise WeightsError(
                    f"storage {storage.label} is missing or packed: the file is damaged or"
                    " was packed again; get the file that torch.save wrote"
                )
            storage.attach(contents(data, record, budget))
            storages[storage.name] = storage
        return _same_storage(storages[storage.name], storage)

    pickled = bytes(contents(data, records[f"{folder}/data.pkl"], budget))
    return whole_pickle(Unpickler(pickled, budget, persistent_load=persistent_load))


def read_torch_legacy(data: mmap.mmap, budget: Budget) -> object:
    """The object of a file that torch.save wrote before 1.6 (or with the zip format off)."""
    storages: dict[str, Storage] = {}
    views: list[tuple[Storage, Storage, int]] = []

    def persistent_load(saved_id: object) -> Storage:
        declared = _declared_storage(saved_id, 6)
        storage = _same_storage(storages.setdefault(declared.name, declared), declared)
        if saved_id[5] is None:
            return storage
        views.append(_part(storage, saved_id[5]))
        return views[-1][0]

    reader = Unpickler(data, budget, persistent_load=persistent_load)
    if reader.load() != LEGACY_MAGIC or reader.load() != _LEGACY_PROTOCOL:
        raise WeightsError("the file's first lines are not those of torch.save: damaged")
    system = reader.load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("the file was written big-endian: save it again on a usual machine")
    result = reader.load()
    _attach_rest(reader, reader.load(), storages)
    _attach_views(views)
    return result


def _archive_folder(records: Mapping[str, Record]) -> str:
    names = [name for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1:
        raise WeightsError("the zip file has no data.pkl, or more than one: not one of torch.save")
    return names[0].split("/")[0]


def whole_pickle(reader: Unpickler) -> object:
    """The object of a pickle that has to fill its range to the last byte."""
    result = reader.load()
    if reader.position != reader.end:
        raise reader.broken(f"has {reader.end - reader.position} bytes behind its end: refused")
    return result


def _declared_storage(saved_id: object, length: int) -> Storage:
    # ('storage', type, key, device, number of elements[, view]): see torch.serialization.
    if not isinstance(saved_id, tuple) or len(saved_id) != length or saved_id[0] != "storage":
        raise WeightsError("a persistent id names no storage: only tensors are read; refused")
    _, kind, key, _, numel = saved_id[:5]
    if not isinstance(kind, StorageType) or type(key) is not str:
        raise WeightsError("a storage has no type or key that is known: refused")
    if type(numel) is not int or numel < 0:
        raise WeightsError(f"storage {shown(key)} has no usable size: the file is damaged")
    return Storage(key, kind.dtype, numel)


def _same_storage(storage: Storage, declared: Storage) -> Storage:
    if (storage.dtype, storage.numel) != (declared.dtype, declared.numel):
        raise WeightsError(f"storage {storage.label} is declared in two ways: refused")
    return storage


def _part(root: Storage, view: object) -> tuple[Storage, Storage, int]:
    # (key, offset, size) in elements: a storage that is a stretch of another one.
    if not isinstance(view, tuple) or len(view) != 3 or any(type(n) is not int for n in view[1:]):
        raise WeightsError(f"storage {root.label} has a broken view: the file is damaged")
    _, offset, size = view
    if offset < 0 or size < 0 or offset + size > root.numel:
        raise WeightsError(f"storage {root.label} has a view that reaches outside: refused")
    return Storage(root.name, root.dtype, size), root, offset


def _attach_rest(reader: Unpickler, keys: object, storages: Mapping[str, Storage]) -> None:
    # Behind the last pickle: for each key the number of elements (8 bytes), then the elements.
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise WeightsError("the file's list of storages is broken: damaged; get it again")
    if sorted(keys) != sorted(storages):
        raise WeightsError("the file's storages are not those of its tensors: damaged")
    for key in keys:
        _attach_next(reader, storages[key])
    if reader.position != reader.end:
        raise reader.broken(f"is followed by {reader.end - reader.position} bytes too many")


def _attach_next(reader: Unpickler, storage: Storage) -> None:
    if reader.number("<q") != storage.numel:
        raise WeightsError(f"storage {storage.label} has another size than its tensors say")
    start = reader.position
    stop = min(start + storage.numel * storage.dtype.itemsize, reader.end)
    storage.attach(memoryview(reader.data)[start:stop])
    reader.position = stop


def _attach_views(views: list[tuple[Storage, Storage, int]]) -> None:
    for storage, root, offset in views:
        item = storage.dtype.itemsize
        storage.attach(memoryview(root.data)[offset * item : (offset + storage.numel) * item])
