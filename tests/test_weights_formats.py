"""Files of every format that contradict themselves are refused, with the place and the fix."""

import io
import json
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from checkpoint_writers import (
    dictionary,
    npy,
    pickled,
    safetensors,
    small_arrays,
    torch_legacy,
    torch_zip,
    torch_zip_of,
    whole,
    zip_file,
)

from retinanet_jax.weights.weights_error import WeightsError

SIX = np.arange(6, dtype=np.float32)


def _refused(read, content, complaint):
    with pytest.raises(WeightsError, match=rf"weights\.bin: .*{complaint}"):
        read(content)


def _npz(arrays, tmp_path, save=np.savez):
    save(tmp_path / "arrays.npz", **arrays)
    return (tmp_path / "arrays.npz").read_bytes()


# The zip file itself.


def test_flipped_data_does_not_fit_its_checksum(read):
    content = torch_zip_of({"a": SIX})
    at = content.index(SIX.tobytes()) + 5
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    _refused(read, flipped, "Bad CRC-32")


def test_no_checksum_is_allowed(read):
    # torch.serialization.set_crc32_options(False) writes zeros.
    content = torch_zip_of({"a": SIX})
    for info in zipfile.ZipFile(io.BytesIO(content)).infolist():
        content = content.replace(struct.pack("<I", info.CRC), bytes(4))
    assert read(content)["a"].tobytes() == SIX.tobytes()


def test_two_records_of_one_name_are_refused(read):
    content = bytearray(zip_file([("a.npy", npy(SIX)), ("b.npy", npy(SIX))]))
    second = content.rindex(b"PK\1\2")
    content[second + 46 : second + 51] = b"a.npy"
    _refused(read, bytes(content), "two records with the same name")


def test_records_that_share_bytes_cannot_fill_the_memory(read):
    """Every entry of the directory points at the one record: 100 x 1 MB out of 1 MB."""
    packed = zip_file([("0000.npy", npy(np.zeros(10**6, np.uint8)))])
    at, end = packed.index(b"PK\1\2"), packed.index(b"PK\5\6")
    entry, directory = packed[at:end], b""
    for number in range(100):
        directory += entry.replace(b"0000.npy", b"%04d.npy" % number)
    last = packed[end : end + 8] + struct.pack("<2H2IH", 100, 100, len(directory), at, 0)
    _refused(read, packed[:at] + directory + last, "damaged|bomb")


def test_packed_records_of_torch_are_refused(read):
    pickle_bytes = pickled(dictionary({"a": whole("0", SIX)}))
    records = [("x/data.pkl", pickle_bytes), ("x/data/0", SIX.tobytes() * 1)]
    packed = zip_file(records, compression=zipfile.ZIP_DEFLATED)
    _refused(read, packed, "missing or compressed")


def test_a_zip_bomb_is_refused_in_little_memory(read, tmp_path):
    bomb = _npz({"a": np.zeros(2**26, np.float32)}, tmp_path, np.savez_compressed)
    assert len(bomb) < 2**19
    tracemalloc.start()
    _refused(read, bomb, "decompression bomb")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_record_that_unpacks_to_more_than_it_says_is_refused(read):
    packed = zip_file([("a.npy", npy(np.zeros(10**6)))], compression=zipfile.ZIP_DEFLATED)
    at = packed.index(b"PK\1\2") + 24
    _refused(
        read,
        packed[:at] + struct.pack("<I", 1000) + packed[at + 4 :],
        "Bad CRC-32|bytes instead of",
    )


def test_cut_zip_files_are_refused(read):
    content = torch_zip_of(small_arrays())
    for stop in range(1, len(content), 7):
        with pytest.raises(WeightsError):
            read(content[:stop])
    _refused(read, content[2:], "begins with")


def test_torchscript_is_named(read):
    items = pickled(dictionary({"a": whole("0", SIX)}))
    content = torch_zip(items, {"0": SIX.tobytes()}, more=[("code/m.py", b"x = 1")])
    _refused(read, content, "TorchScript")


def test_two_pickles_in_one_zip_are_refused(read):
    _refused(read, zip_file([("a/data.pkl", b"N."), ("b/data.pkl", b"N.")]), "more than one")


def test_big_endian_files_of_torch_are_named(read):
    content = zip_file([("x/data.pkl", pickled(b"}")), ("x/byteorder", b"big")])
    _refused(read, content, "big-endian")


# The other formats.


def _old(storages):
    return torch_legacy(pickled(dictionary({"a": whole("0", SIX, b"N")})), storages)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (_old([("0", 6, SIX.tobytes()[:-1])]), "has 23"),
        (_old([("0", 5, SIX.tobytes())]), "does not have the size"),
        (_old([("0", -6, SIX.tobytes())]), "does not have the size"),
        (_old([]), "not those of its tensors"),
        (_old([("0", 6, SIX.tobytes()), ("0", 6, SIX.tobytes())]), "not those of its tensors"),
        (_old([("0", 6, SIX.tobytes() + b"x")]), "1 bytes too many"),
    ],
)
def test_old_torch_files_that_contradict_themselves_are_refused(read, content, complaint):
    _refused(read, content, complaint)


def test_tar_files_are_refused_with_the_fix(read):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    _refused(
        read, buffer.getvalue(), "tar format .before 2017. is not supported: load it with torch"
    )


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"dtype": "F32", "shape": [7], "data_offsets": [0, 24]}, 24),
        ({"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}, 23),
        ({"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}, 25),
        ({"dtype": "F32", "shape": [6], "data_offsets": [4, 28]}, 28),
        ({"dtype": "F32", "shape": [6], "data_offsets": [24, 0]}, 24),
        ({"dtype": "F32", "shape": [-6], "data_offsets": [0, 24]}, 24),
        ({"dtype": "F8_E4M3", "shape": [6], "data_offsets": [0, 6]}, 6),
        ({"dtype": "F32", "shape": [6]}, 24),
        ({"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}, 0),
        ([], 0),
    ],
)
def test_safetensors_that_contradict_themselves_are_refused(read, fields, body):
    header = json.dumps({"a": fields}).encode()
    _refused(read, safetensors(header, bytes(body)), "safetensors file is damaged")


@pytest.mark.parametrize(
    "header",
    [b"{" * 100, b'{"a":' + b"[" * 200_000, b'{"a": 1' + b"0" * 5000 + b"}", b'{"a": "\xff"}'],
)
def test_broken_safetensors_headers_are_refused(read, header):
    _refused(read, safetensors(header, b""), "safetensors file is damaged")


def test_a_cut_safetensors_header_is_refused(read):
    _refused(read, struct.pack("<Q", 1000) + b'{"a"', "safetensors file is damaged")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (npy(SIX, shape=(7,)), "expected 28 bytes got 24"),
        (npy(SIX, shape=(5,)), "more bytes than its shape"),
        (npy(SIX, shape=(2**62, 0)), "damaged"),
        (npy(SIX, shape=(2**44,)), "damaged"),
        (npy(SIX, descr="|O"), "not an array of plain numbers"),
        (npy(SIX, descr="<U6"), "damaged"),
        (npy(SIX, descr="<U1"), "not plain numbers"),
        (npy(SIX, descr=[("x", "<f4")]), "not plain numbers"),
        (npy(SIX, descr="<f4' + __import__('os').name + '"), "not an array of plain numbers"),
        (npy(SIX, shape=(-6,)), "not an array of plain numbers"),
        (npy(SIX)[:40], "not an array of plain numbers"),
        (npy(SIX)[:-1], "expected 24 bytes got 23"),
        (b"\x93NUMPY", "damaged"),
    ],
)
def test_npz_files_that_contradict_themselves_are_refused(read, content, complaint):
    _refused(read, zip_file([("a.npy", content)]), complaint)


def test_pickled_arrays_in_npz_are_refused(read, tmp_path):
    content = _npz({"a": np.array([{"b": 1}], dtype=object)}, tmp_path)
    _refused(read, content, "not an array of plain numbers")
