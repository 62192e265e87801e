"""TFRecord files: their records by number and place, and the tf.train.Example in a record.

A file is a sequence of (length, CRC of the length, data, CRC of the data). The CRCs of lengths are
checked; those of data are not: a damaged image does not decode.
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.data_errors import DataError

RECORD_SUFFIXES = (".tfrecord", ".tfrecords", ".tfrec", ".record", ".records")
# The number of a file and of all files of a set: train.record-00000-of-00010.
SHARD = re.compile(r"-(\d{5,})-of-(\d{5,})")
_HEADER, _FOOTER = 12, 4  # bytes before and after the data of a record
_GZIP, _ZLIB = b"\x1f\x8b", (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_FROM_ZLIB = "import sys, zlib; sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))"


class Record(NamedTuple):
    """A record, the first being number 0, and the offset of its data in the file."""

    number: int
    offset: int
    data: bytes


def read_records(path: Path) -> Iterator[Record]:
    """Yields the records of a file.

    Raises:
      DataError: the file cannot be read, is compressed, cut short or damaged; names the record.
    """
    number = 0
    try:
        with open(path, "rb") as file:
            left = os.fstat(file.fileno()).st_size
            while header := file.read(_HEADER):
                length = _length(header)
                if length is None:
                    raise _broken(path, number, header if len(header) == _HEADER else b"")
                left -= _HEADER + length + _FOOTER
                if left < 0:
                    raise _broken(path, number)
                offset = file.tell()
                yield Record(number, offset, file.read(length))
                file.seek(offset + length + _FOOTER)
                number += 1
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise DataError(
            "unreadable TFRecord", path, "", what, "check that it exists and can be read"
        ) from error


def without_shard(name: str) -> str:
    """Returns the name of a file without its number in a set: train.record."""
    return SHARD.sub("", name)


def is_record_file(head: bytes) -> bool:
    """Returns whether the first bytes are a record's length and its CRC, or are compressed."""
    return head.startswith((_GZIP, *_ZLIB)) or _length(head[:_HEADER]) is not None


def parse_example(data: bytes) -> dict[str, Sequence]:
    """Returns the features of a tf.train.Example: lists of bytes, floats or integers by name.

    Raises:
      google.protobuf.message.DecodeError: it is not a tf.train.Example.
    """
    # Imported here: most folders are read without TFDS.
    from tensorflow_datasets.proto import tf_example_pb2

    features: dict[str, Sequence] = {}
    for name, feature in tf_example_pb2.Example.FromString(data).features.feature.items():
        kind = feature.WhichOneof("kind")
        features[name] = getattr(feature, kind).value if kind else ()
    return features


def masked_crc32c(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli) of some bytes, masked as in TFRecord; slow."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _length(header: bytes) -> int | None:
    """The length that a header states; None where it is cut short or damaged."""
    if len(header) < _HEADER:
        return None
    length, crc = struct.unpack("<QI", header)
    return length if crc == masked_crc32c(header[:8]) else None


def _broken(path: Path, number: int, header: bytes = b"") -> DataError:
    """The error of a record that is cut short, or, given its whole header, of a damaged one."""
    if number == 0 and header.startswith((_GZIP, *_ZLIB)):
        is_gzip = header.startswith(_GZIP)
        what = f"is compressed ({'GZIP' if is_gzip else 'ZLIB'}): images cannot be read in place"
        command = "gzip -dc" if is_gzip else f'python3 -c "{_FROM_ZLIB}"'
        fix = f"replace it with the output of '{command} < {path.name}'"
        return DataError("compressed TFRecord", path, "", what, fix)
    what = "its length is damaged" if header else "it is truncated"
    reason = "damaged TFRecord"
    return DataError(reason, path, f"record {number}", what, "copy the file again")
