"""Bombs and damaged files end in WeightsError or a valid load, in bounded memory and time."""

import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoint_writers import (
    call,
    dictionary,
    group,
    integer,
    integers,
    name,
    npy,
    pickled,
    safetensors,
    small_arrays,
    storage,
    text,
    torch_legacy_of,
    torch_zip_of,
    zip_file,
)

from retinanet_jax.weights.readers import read_state_dict
from retinanet_jax.weights.weights_error import WeightsError

RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
SECONDS = 5

# Bombs: small files that ask for much memory or time.


def _doubled(first, count):
    # t0 = first; t(n+1) = (tn, tn): 2**count leaves in a few bytes.
    return first + b"q\x00" + b"0h\x00h\x00\x86q\x00" * count


def _shared_array(count):
    dtype = call(name("numpy", "dtype"), text("u1"))
    raw = b"B" + struct.pack("<I", 2**20) + bytes(2**20) + b"q\x02"
    state = group(integer(1), integers([2**20]), dtype + b"q\x03", b"\x89", raw) + b"b"
    again = group(integer(1), integers([2**20]), b"h\x03", b"\x89", b"h\x02") + b"b"
    empty = call(RECONSTRUCT, name("numpy", "ndarray"), integers([0]), text("b"))
    items = {str(n): empty + again for n in range(count)}
    return dictionary({"first": empty + state} | items)


def _encoded_again(count):
    encode = name("_codecs", "encode")
    first = call(encode, text("x" * 2**20) + b"q\x02", text("latin1"))
    return first + call(encode, b"h\x02", text("latin1")) * count


def _ordered_again(count):
    pairs = b"](" + group(text("a"), b"N") * 10_000 + b"eq\x02"
    ordered = name("collections", "OrderedDict")
    return call(ordered, pairs) + call(ordered, b"h\x02") * count


def integer_of(value):
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + raw


def _minus_ones(number, count):
    # -1 and -2 have one hash, and so have all tuples of them.
    return b"(" + b"".join(integer(-1 - (number >> bit & 1)) for bit in range(count)) + b"t"


BOMBS = {
    "bytes of 2**62": pickled(b"\x8e" + struct.pack("<Q", 2**62)),
    "bytes of 2**63": pickled(b"\x8e" + struct.pack("<Q", 2**63)),
    "bytes of 4 GB": pickled(b"B" + b"\xff" * 4),
    "a bytearray of 2**62": pickled(b"\x96" + struct.pack("<Q", 2**62)),
    "a text of 2**62": pickled(b"\x8d" + struct.pack("<Q", 2**62)),
    "a text of -1": pickled(b"T" + struct.pack("<i", -1)),
    "an integer of 2 GB": pickled(b"\x8b" + struct.pack("<i", 2**31 - 1)),
    "an integer of -1 bytes": pickled(b"\x8b" + struct.pack("<i", -1)),
    "an integer of a million digits": b"(L" + b"9" * 10**6 + b"L\n.",
    "a frame of 2**60": pickled(b"\x95" + struct.pack("<Q", 2**60)),
    "a memo of 4 billion": pickled(b"Nr\xff\xff\xff\xff" + b"p99999999999999999999\n"),
    "a million times nothing": pickled(b"N" * 1_100_000),
    "a million marks": pickled(b"(" * 1_100_000),
    "half a million nested lists": pickled(b"]" * 500_000 + b"a" * 499_999),
    "half a million nested tuples": pickled(b")" + b"\x85" * 500_000),
    "a doubled tuple": pickled(_doubled(b")", 200)),
    "a doubled tuple as a value": pickled(dictionary({"model": b"}", "a": _doubled(b")", 200)})),
    "a doubled tuple as a key": pickled(b"}" + _doubled(b")", 200) + b"Ns"),
    "a doubled tuple as a shape": pickled(
        call(REBUILD, storage("0", "Float", 1), integer(0), _doubled(b")", 99), integers([1]))
    ),
    "a doubled tuple as a name": pickled(_doubled(b")", 200) + text("system") + b"\x93"),
    "a list in itself": pickled(b"]q\x00h\x00a"),
    "a dictionary in itself": pickled(b"}q\x00" + text("model") + b"h\x00s"),
    "keys that hash alike": pickled(
        b"}(" + b"".join(integer_of(n * (2**61 - 1)) + b"N" for n in range(16_000)) + b"u"
    ),
    "tuples that hash alike": pickled(
        b"}(" + b"".join(_minus_ones(n, 14) + b"N" for n in range(2**14)) + b"u"
    ),
    "places of the memo that hash alike": pickled(
        b"N" + b"".join(b"p%d\n" % (n * (2**61 - 1)) for n in range(16_000))
    ),
    "a set of keys that hash alike": pickled(
        b"\x8f(" + b"".join(integer_of(n * (2**61 - 1)) for n in range(16_000)) + b"\x90"
    ),
    "one array a thousand times": pickled(_shared_array(1000)),
    "one text encoded a thousand times": pickled(_encoded_again(1000)),
    "one list of pairs, a hundred thousand times": pickled(_ordered_again(50_000)),
}


def check_bombs(folder):
    path = folder / "weights.pkl"
    for label, content in BOMBS.items():
        path.write_bytes(content)
        start = time.process_time()
        with pytest.raises(WeightsError) as caught:
            read_state_dict(path)
        assert time.process_time() - start < SECONDS, label
        assert len(str(caught.value)) < 1000, label


def in_bounded_memory(check, folder):
    """Runs a check with 256 MiB more than the process has; more is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2**28
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    check(folder)


def _in_child(check, folder):
    # A process of its own, for the limit, and without the shape checks, which take most time.
    code = (
        "import pathlib, test_weights_damage as tests;"
        f"tests.in_bounded_memory(tests.{check.__name__}, pathlib.Path({str(folder)!r}))"
    )
    here = Path(__file__).parent
    paths = os.pathsep.join((str(here), str(here.parent)))
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()[-4000:]


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the limit is read from /proc")


@linux_only
def test_bombs_end_in_bounded_memory_and_time(tmp_path):
    _in_child(check_bombs, tmp_path)


@linux_only
def test_the_limit_on_memory_is_one(tmp_path):
    with pytest.raises(AssertionError, match="MemoryError"):
        _in_child(check_the_limit, tmp_path)


def check_the_limit(folder):
    bytearray(2**30)


# Damage.


def _seeds():
    arrays = small_arrays()
    header = b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
    header += b'"b":{"dtype":"BF16","shape":[2],"data_offsets":[24,28]}}'
    packed = zip_file([("a.npy", npy(np.zeros((9, 9))))], compression=8)
    zipped = torch_zip_of(arrays)
    wrapped = {"model": arrays, "__author__": "someone", "iteration": 3}
    return [
        zipped,
        _without_checksums(zipped),
        torch_legacy_of(arrays),
        *(pickle.dumps(wrapped, protocol=protocol) for protocol in (0, 2, 4, 5)),
        safetensors(header, bytes(range(28))),
        _without_checksums(zip_file([(f"{key}.npy", npy(arrays[key])) for key in arrays])),
        packed,
    ]


def _without_checksums(content):
    # Else most of the damage in a zip file would end at its checksums.
    content, at = bytearray(content), content.find(b"PK\1\2")
    while at >= 0:
        content[at + 16 : at + 20] = bytes(4)
        at = content.find(b"PK\1\2", at + 1)
    return bytes(content)


def _mutated(rng, seeds):
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(content) + 1)
        length = min(rng.choice((1, 2, 4, 8, 64)), len(content) - at)
        change = rng.randrange(6)
        if change == 0:
            content[at : at + length] = rng.randbytes(length)
        elif change == 1:
            content[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        elif change == 2:
            content[at : at + 1] = bytes(b ^ (1 << rng.randrange(8)) for b in content[at : at + 1])
        elif change == 3:
            del content[at : rng.choice((at + length, len(content)))]
        elif change == 4:
            other = rng.choice(seeds)
            begin = rng.randrange(len(other))
            content[at:at] = other[begin : begin + rng.choice((4, 32, 400))]
        else:
            content[at : at + length] = content[:length]
    return bytes(content)


def _read_or_refuse(path):
    try:
        arrays = read_state_dict(path)
    except WeightsError as error:
        assert str(path) in str(error)
        assert len(str(error)) < 2000
        return False
    assert all(type(key) is str and type(a) is np.ndarray for key, a in arrays.items())
    assert all(array.dtype.kind in "fiubV" for array in arrays.values())
    return True


def check_damage(folder):
    rng, seeds, path = random.Random(0), _seeds(), folder / "weights.bin"
    for seed in seeds:
        path.write_bytes(seed)
        assert _read_or_refuse(path)
    loaded = 0
    for _ in range(3_000):
        path.write_bytes(_mutated(rng, seeds))
        start = time.process_time()
        loaded += _read_or_refuse(path)
        assert time.process_time() - start < SECONDS
    assert 0 < loaded < 1500


@linux_only
def test_3_000_damaged_files_end_in_our_error_or_a_load(tmp_path):
    _in_child(check_damage, tmp_path)


def test_some_damaged_files_with_shape_checks(tmp_path):
    rng, seeds, path = random.Random(1), _seeds(), tmp_path / "weights.bin"
    for _ in range(300):
        path.write_bytes(_mutated(rng, seeds))
        _read_or_refuse(path)
