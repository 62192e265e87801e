"""Writes checkpoints byte by byte, valid and broken ones, without torch.

The parts of a pickle are functions that return its opcodes (named in Python's pickletools), so that
a test can write what torch.save never would.
"""

import io
import struct
import zipfile

import numpy as np

KINDS = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "u1": "Byte", "b1": "Bool"}


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + raw


def group(*parts):
    return b"(" + b"".join(parts) + b"t"


def integers(values):
    return group(*map(integer, values))


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *arguments):
    return function + group(*arguments) + b"R"


def dictionary(items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickled(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


ORDERED_DICT = call(name("collections", "OrderedDict"))


def storage(key, kind, numel, *view):
    parts = (text("storage"), name("torch", f"{kind}Storage"), text(key), text("cpu"))
    return group(*parts, integer(numel), *view) + b"Q"


def tensor(stored, offset, shape, stride):
    function = name("torch._utils", "_rebuild_tensor_v2")
    view = (integer(offset), integers(shape), integers(stride))
    return call(function, stored, *view, b"\x89", ORDERED_DICT)


def whole(key, array, *view):
    """The tensor that is all of a storage, rows first."""
    strides = [step // array.itemsize for step in array.strides]
    kind = KINDS[array.dtype.str[1:]]
    return tensor(storage(key, kind, array.size, *view), 0, array.shape, strides)


def zip_file(records, *, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for record, content in records:
            archive.writestr(record, content)
    return buffer.getvalue()


def torch_zip(pickle, storages, *, folder="archive", more=()):
    """What torch.save writes: a pickle, and the bytes of the storages by their keys."""
    records = [("data.pkl", pickle), ("byteorder", b"little"), ("version", b"3\n"), *more]
    records += [(f"data/{key}", content) for key, content in storages.items()]
    return zip_file([(f"{folder}/{record}", content) for record, content in records])


def torch_zip_of(arrays):
    items = {key: whole(str(n), array) for n, (key, array) in enumerate(arrays.items())}
    contents = {str(n): array.tobytes() for n, array in enumerate(arrays.values())}
    return torch_zip(pickled(dictionary(items)), contents)


def torch_legacy(pickle, storages):
    """The format before torch 1.6; `storages`: (key, number of elements, bytes)."""
    magic = pickled(b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little"))
    system = pickled(b"}" + text("little_endian") + b"\x88s")
    keys = pickled(b"](" + b"".join(text(key) for key, _, _ in storages) + b"e")
    rest = b"".join(struct.pack("<q", numel) + content for _, numel, content in storages)
    return magic + pickled(b"M\xe9\x03") + system + pickle + keys + rest


def torch_legacy_of(arrays):
    items = {key: whole(str(n), array, b"N") for n, (key, array) in enumerate(arrays.items())}
    storages = [(str(n), array.size, array.tobytes()) for n, array in enumerate(arrays.values())]
    return torch_legacy(pickled(dictionary(items)), storages)


def safetensors(header, body):
    return struct.pack("<Q", len(header)) + header + body


def npy(array, **changes):
    """A .npy file whose header may say something else than the array."""
    fields = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | changes
    header = repr(fields).replace("}", ", }").encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.tobytes()


def small_arrays():
    """A few arrays of several dtypes and shapes, among them a scalar and an empty one."""
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "bn.bias": rng.normal(size=4).astype(np.float16),
        "bn.num_batches_tracked": np.array(7, np.int64),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
    }
