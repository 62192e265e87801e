"""The records of a zip file (torch's .pth, numpy's .npz), with every number of it checked.

The layout is PKWARE's APPNOTE: records, each behind a local header, then a central directory,
then an end record that says where the directory is; the ZIP64 forms hold 8-byte numbers. Python's
zipfile reads all the variants there are; here a file that contradicts itself is refused.
"""

import mmap
import struct
import zlib
from typing import NamedTuple

from retinanet_jax.weights.tensors import Budget
from retinanet_jax.weights.weights_error import WeightsError, shown

MAX_RECORDS = 65_536

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_MAX_COMMENT = 65_535
_ENCRYPTED = 1
_STORED, _DEFLATED = 0, 8


class Record(NamedTuple):
    """One file in the zip file: sizes in bytes, `header` and `start` are positions."""

    name: str
    header: int
    start: int
    packed_size: int
    size: int
    crc: int
    deflated: bool


def read_records(data: mmap.mmap) -> dict[str, Record]:
    """The records by name.

    Raises WeightsError for a directory that is damaged, for names that occur twice, and for
    records that overlap each other or reach outside of the file.
    """
    directory, directory_size, count = _find_directory(data)
    records, position = {}, directory
    for _ in range(count):
        record, position = _read_entry(data, position, directory + directory_size)
        if record.name in records:
            raise WeightsError(f"the zip file has the record {shown(record.name)} twice: refused")
        records[record.name] = record
    _check_overlap(records, directory)
    return records


def contents(data: mmap.mmap, record: Record, budget: Budget) -> bytes | memoryview:
    """The record's bytes, unpacked; raises WeightsError unless size and checksum are right.

    A stored record costs no memory. A checksum of 0 is none: torch can be told to write none.
    """
    packed = memoryview(data)[record.start : record.start + record.packed_size]
    unpacked = _inflate(packed, record, budget) if record.deflated else packed
    if len(unpacked) != record.size:
        raise WeightsError(
            f"record {shown(record.name)} has {len(unpacked)} bytes instead of {record.size}:"
            " the file is damaged; get it again"
        )
    if record.crc and zlib.crc32(unpacked) != record.crc:
        raise WeightsError(
            f"record {shown(record.name)} does not fit its checksum: the file is damaged;"
            " get it again"
        )
    return unpacked


def _inflate(packed: memoryview, record: Record, budget: Budget) -> bytes:
    budget.charge(record.size, f"record {shown(record.name)}")
    try:
        # One byte more than declared shows that there is more, and no more than that is unpacked.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, record.size + 1)
    except zlib.error as error:
        raise WeightsError(f"record {shown(record.name)} cannot be unpacked: {error}") from error


def _unpack(layout: struct.Struct, magic: bytes, data: mmap.mmap, position: int) -> tuple:
    raw = data[position : position + layout.size] if position >= 0 else b""
    if len(raw) != layout.size or raw[:4] != magic:
        raise WeightsError("the zip file's directory is damaged or cut off; get the file again")
    return layout.unpack(raw)[1:]


def _find_directory(data: mmap.mmap) -> tuple[int, int, int]:
    end = data.rfind(b"PK\5\6", max(0, len(data) - _MAX_COMMENT - _END.size))
    *_, count, size, start, comment = _unpack(_END, b"PK\5\6", data, end)
    if end + _END.size + comment != len(data):
        raise WeightsError("the zip file goes on behind its end record: damaged; get it again")
    stop = end
    if data[max(0, end - _LOCATOR.size) : end][:4] == b"PK\6\7":
        _, stop, _ = _unpack(_LOCATOR, b"PK\6\7", data, end - _LOCATOR.size)
        if stop >= end:
            raise WeightsError("the zip file's end record is damaged; get the file again")
        *_, count, size, start = _unpack(_END64, b"PK\6\6", data, stop)
    if start + size != stop or count > MAX_RECORDS or count * _CENTRAL.size > size:
        raise WeightsError("the zip file's directory contradicts its end record: refused")
    return start, size, count


def _read_entry(data: mmap.mmap, position: int, stop: int) -> tuple[Record, int]:
    fields = _unpack(_CENTRAL, b"PK\1\2", data, position)
    _, _, flags, method, _, _, crc, packed, size, name_size, extra_size, comment, _, _, _, at = (
        fields
    )
    position += _CENTRAL.size
    raw_name = data[position : position + name_size]
    extra = data[position + name_size : position + name_size + extra_size]
    position += name_size + extra_size + comment
    name = raw_name.decode("utf-8", "backslashreplace")
    if position > stop or flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
        raise WeightsError(
            f"record {shown(name)} is cut off, encrypted or packed in an unknown way: refused"
        )
    size, packed, at = _wide(extra, (size, packed, at))
    start = _data_start(data, at, raw_name)
    if method == _STORED and packed != size:
        raise WeightsError(f"record {shown(name)} is stored, but declares two sizes: refused")
    return Record(name, at, start, packed, size, crc, method == _DEFLATED), position


def _wide(extra: bytes, values: tuple[int, int, int]) -> list[int]:
    # The ZIP64 field (tag 1) holds, in this order, the numbers that did not fit 4 bytes.
    wide, position = b"", 0
    while position + 4 <= len(extra):
        tag, size = struct.unpack_from("<2H", extra, position)
        if tag == 1:
            wide = extra[position + 4 : position + 4 + size]
        position += 4 + size
    numbers = iter(struct.unpack_from(f"<{len(wide) // 8}Q", wide))
    return [next(numbers, value) if value == 0xFFFFFFFF else value for value in values]


def _data_start(data: mmap.mmap, position: int, raw_name: bytes) -> int:
    *_, name_size, extra_size = _unpack(_LOCAL, b"PK\3\4", data, position)
    start = position + _LOCAL.size
    if data[start : start + name_size] != raw_name:
        raise WeightsError(
            f"record {shown(ascii(raw_name))} has two names in the zip file: refused"
        )
    return start + name_size + extra_size


def _check_overlap(records: dict[str, Record], directory: int) -> None:
    in_order = sorted(records.values(), key=lambda record: record.header)
    headers = [*(record.header for record in in_order), directory]
    for record, end in zip(in_order, headers[1:], strict=True):
        if record.start + record.packed_size > end:
            raise WeightsError(
                f"record {shown(record.name)} overlaps what follows it in the zip file: refused"
            )
