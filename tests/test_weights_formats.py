"""Files of every format that contradict themselves are refused, with the place and the fix."""

import io
import json
import struct
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
    tar_file,
    torch_legacy,
    torch_tar_members,
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
    _refused(read, flipped, "checksum")


def test_no_checksum_is_allowed(read):
    # torch.serialization.set_crc32_options(False) writes zeros.
    content = torch_zip_of({"a": SIX})
    for info in zipfile.ZipFile(io.BytesIO(content)).infolist():
        content = content.replace(struct.pack("<I", info.CRC), bytes(4))
    assert read(content)["a"].tobytes() == SIX.tobytes()


def test_records_that_overlap_are_refused(read):
    # The second entry of the directory is pointed at the first record, which lies under its name.
    content = bytearray(zip_file([("a.npy", npy(SIX)), ("b.npy", npy(SIX))]))
    first = content.index(b"PK\1\2")
    second = content.index(b"PK\1\2", first + 1)
    content[second + 42 : second + 46] = bytes(4)
    content[second + 46 : second + 51] = b"a.npy"
    _refused(read, bytes(content), "twice")
    content[second + 46 : second + 51] = b"b.npy"
    _refused(read, bytes(content), "two names")
    content = bytearray(zip_file([("a.npy", npy(SIX)), ("b.npy", npy(SIX))]))
    for at in (first + 20, first + 24):
        content[at : at + 4] = struct.pack("<I", len(npy(SIX)) + 8)
    _refused(read, bytes(content), "overlaps")


def test_a_record_within_another_is_refused(read):
    inner = zip_file([("b.npy", npy(SIX))])[: -22 - 46 - 5]
    outer = bytearray(zip_file([("a.npy", inner), ("b.npy", npy(SIX))]))
    second = outer.rindex(b"PK\1\2")
    outer[second + 42 : second + 46] = struct.pack("<I", outer.index(inner))
    _refused(read, bytes(outer), "overlaps")


def test_packed_records_of_torch_are_refused(read):
    pickle_bytes = pickled(dictionary({"a": whole("0", SIX)}))
    records = [("x/data.pkl", pickle_bytes), ("x/data/0", SIX.tobytes() * 1)]
    packed = zip_file(records, compression=zipfile.ZIP_DEFLATED)
    _refused(read, packed, "missing or packed")


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
    _refused(read, packed[:at] + struct.pack("<I", 1000) + packed[at + 4 :], "bytes instead of")


def test_cut_zip_files_are_refused(read):
    content = torch_zip_of(small_arrays())
    for stop in range(1, len(content), 7):
        with pytest.raises(WeightsError):
            read(content[:stop])
    _refused(read, content + b"x", "goes on behind")
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
        (_old([("0", 5, SIX.tobytes())]), "another size"),
        (_old([("0", -6, SIX.tobytes())]), "another size"),
        (_old([]), "not those of its tensors"),
        (_old([("0", 6, SIX.tobytes()), ("0", 6, SIX.tobytes())]), "not those of its tensors"),
        (_old([("0", 6, SIX.tobytes() + b"x")]), "1 bytes too many"),
    ],
)
def test_old_torch_files_that_contradict_themselves_are_refused(read, content, complaint):
    _refused(read, content, complaint)


def test_tar_files_that_contradict_themselves_are_refused(read):
    members = torch_tar_members({"a": SIX})
    _refused(read, tar_file(members | {"storages": members["storages"][:-3]}), "cut short")
    _refused(read, tar_file({"a.txt": b"hello"}), "not torch's")
    _refused(read, tar_file(members)[:1024], "cut off|not torch's")
    broken = members["tensors"].replace(struct.pack("<q", 6), struct.pack("<q", 7))
    _refused(read, tar_file(members | {"tensors": broken}), "reaches element 6")


@pytest.mark.parametrize(
    ("fields", "body", "complaint"),
    [
        ({"dtype": "F32", "shape": [7], "data_offsets": [0, 24]}, 24, "not 6 elements"),
        ({"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}, 23, "cut off"),
        ({"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}, 25, "belong to no tensor"),
        ({"dtype": "F32", "shape": [6], "data_offsets": [4, 28]}, 28, "leaves a gap"),
        ({"dtype": "F32", "shape": [6], "data_offsets": [24, 0]}, 24, "leaves a gap"),
        ({"dtype": "F32", "shape": [-6], "data_offsets": [0, 24]}, 24, "broken shape"),
        ({"dtype": "F32", "shape": [6.0], "data_offsets": [0, 24]}, 24, "broken shape"),
        ({"dtype": "F32", "shape": [6], "data_offsets": [0, 24, 0]}, 24, "broken shape"),
        ({"dtype": "F32", "shape": 6, "data_offsets": [0, 24]}, 24, "broken shape"),
        ({"dtype": "F8_E4M3", "shape": [6], "data_offsets": [0, 6]}, 6, "dtype that is not"),
        ({"dtype": ["F32"], "shape": [6], "data_offsets": [0, 24]}, 24, "dtype that is not"),
        ({"dtype": "F32", "shape": [6]}, 24, "lacks dtype"),
        ({"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}, 0, "absurd"),
        ([], 0, "lacks dtype"),
    ],
)
def test_safetensors_that_contradict_themselves_are_refused(read, fields, body, complaint):
    header = json.dumps({"a": fields}).encode()
    _refused(read, safetensors(header, bytes(body)), complaint)


def test_safetensors_that_overlap_are_refused(read):
    fields = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
    header = json.dumps({"a": fields, "b": fields}).encode()
    _refused(read, safetensors(header, bytes(24)), "overlaps")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (b"{" * 100, "no JSON"),
        (b'{"a":' + b"[" * 200_000, "no JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "no JSON"),
        (b'{"a": {}, "a": {}}', "twice"),
        (b'{"a": "\xff"}', "no JSON"),
        (b'{"a": "b"}', "lacks dtype"),
    ],
)
def test_broken_safetensors_headers_are_refused(read, header, complaint):
    _refused(read, safetensors(header, b""), complaint)


def test_a_cut_safetensors_header_is_named(read):
    _refused(read, struct.pack("<Q", 1000) + b'{"a"', "cut off")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (npy(SIX, shape=(7,)), "not 6 elements"),
        (npy(SIX, shape=(2**62, 0)), "not 6 elements"),
        (npy(SIX, descr="|O"), "no array of plain numbers"),
        (npy(SIX, descr="<U6"), "no array of plain numbers"),
        (npy(SIX, descr=[("x", "<f4")]), "no array of plain numbers"),
        (npy(SIX, descr="<f4' + __import__('os').name + '"), "no array of plain numbers"),
        (npy(SIX, shape=(-6,)), "no array of plain numbers"),
        (npy(SIX)[:40], "no array of plain numbers"),
        (npy(SIX)[:-1], "has 23"),
        (b"\x93NUMPY", "does not begin like a numpy array"),
    ],
)
def test_npz_files_that_contradict_themselves_are_refused(read, content, complaint):
    _refused(read, zip_file([("a.npy", content)]), complaint)


def test_pickled_arrays_in_npz_are_refused(read, tmp_path):
    content = _npz({"a": np.array([{"b": 1}], dtype=object)}, tmp_path)
    _refused(read, content, "no array of plain numbers")
