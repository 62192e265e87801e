"""Reading checkpoints: real files of torch, every format, and wrong declarations of tensors."""

import json
import pickle
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from checkpoint_writers import (
    ORDERED_DICT,
    call,
    dictionary,
    group,
    integer,
    name,
    pickled,
    safetensors,
    small_arrays,
    storage,
    tensor,
    text,
    torch_legacy,
    torch_legacy_of,
    torch_zip,
    torch_zip_of,
    whole,
    zip_file,
)

from retinanet_jax.weights.readers import read_checkpoint, read_state_dict
from retinanet_jax.weights.weights_error import WeightsError

GOLDEN = Path(__file__).parent / "golden"
SIX = np.arange(6, dtype=np.float32)


def _refused(read, content, complaint):
    with pytest.raises(WeightsError, match=rf"weights\.bin: .*{complaint}"):
        read(content)


def _assert_same(found, expected):
    assert list(found) == list(expected)
    for key, array in expected.items():
        assert found[key].dtype == array.dtype, key
        assert found[key].shape == array.shape, key
        assert found[key].tobytes() == array.tobytes(), key


def _npz(arrays, tmp_path, save=np.savez):
    save(tmp_path / "arrays.npz", **arrays)
    return (tmp_path / "arrays.npz").read_bytes()


def _safetensors_of(arrays):
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "bool": "BOOL"}
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for key, array in arrays.items():
        offsets = [len(body), len(body) + array.nbytes]
        dtype = names[array.dtype.name]
        header[key] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        body += array.tobytes()
    return safetensors(json.dumps(header).encode(), body)


# Files that torch 2.13 wrote (tests/golden/make_torch_files.py).


@pytest.mark.parametrize("file", ["torch_zip.pth", "torch_legacy.pth"])
def test_files_of_torch_are_read_bit_for_bit(file):
    base = np.arange(24, dtype=np.float32).reshape(4, 6) / np.float32(7)
    expected = {
        "norm.weight": np.ones(2, np.float32),
        "norm.bias": np.zeros(2, np.float32),
        "norm.running_mean": np.zeros(2, np.float32),
        "norm.running_var": np.ones(2, np.float32),
        "norm.num_batches_tracked": np.array(0, np.int64),
        "base": base,
        "tied": base,
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "expanded": np.repeat(base[0, 1], 3),
        "parameter": base * 2,
        "bfloat16": base.astype(ml_dtypes.bfloat16),
        "float16": base.astype(np.float16),
        "float64": base.astype(np.float64),
        "flags": base > 1,
        "empty": np.zeros((0, 3), np.float32),
    }
    found = read_state_dict(GOLDEN / file)
    _assert_same(found, expected)
    assert all(array.flags.writeable and array.flags.c_contiguous for array in found.values())
    assert not np.shares_memory(found["base"], found["tied"])


def test_a_training_checkpoint_of_torch_opens():
    found = read_checkpoint(GOLDEN / "torch_training.pth")
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert [name for name in found.arrays if "running" not in name] == [
        *names,
        "1.num_batches_tracked",
    ]
    np.testing.assert_array_equal(found.arrays["0.weight"].ravel(), np.float32([0.5, -2]))
    assert found.notes == (
        "left out: the moving average (EMA) of the weights, 'model_ema'; --ema loads it",
    )
    average = read_checkpoint(GOLDEN / "torch_training.pth", average=True)
    assert list(average.arrays) == [f"module.{name}" for name in found.arrays]
    assert average.is_average and not found.is_average


# Every format, written here.


def test_every_format_gives_the_same_arrays(read, tmp_path):
    arrays = small_arrays()
    files = {
        "zip": torch_zip_of(arrays),
        "legacy": torch_legacy_of(arrays),
        "npz": _npz(arrays, tmp_path),
        "npz, packed": _npz(arrays, tmp_path, np.savez_compressed),
        "safetensors": _safetensors_of(arrays),
    }
    for protocol in range(2, 6):
        files[f"pickle {protocol}"] = pickle.dumps(arrays, protocol=protocol)
    for label, content in files.items():
        try:
            found = read(content)
        except WeightsError as error:
            raise AssertionError(label) from error
        # A format may store tensors in any order; by name they are the same.
        _assert_same({key: found[key] for key in arrays}, arrays)


@pytest.mark.parametrize(
    "wrapping",
    [
        {"model": 0, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True},
        {"meta": {"epoch": 12, "CLASSES": ("cat", "dog"), "config": "a = 1\n"}, "state_dict": 0},
        {"state_dict": 0, "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}},
    ],
)
def test_wrapped_checkpoints_are_unwrapped(read, wrapping):
    arrays = small_arrays()
    wrapped = {key: arrays if value == 0 else value for key, value in wrapping.items()}
    _assert_same(read(pickle.dumps(wrapped)), arrays)


def test_arrays_of_python_2_are_read(read):
    # numpy in Python 2 wrote an array's bytes, and all names, as byte strings (opcodes U and T).
    def string(value):
        return b"U" + bytes([len(value)]) + value

    reconstruct = name("numpy.core.multiarray", "_reconstruct")
    empty = call(reconstruct, name("numpy", "ndarray"), group(integer(0)), string(b"b"))
    dtype = call(name("numpy", "dtype"), string(b"f4"), integer(0), integer(1))
    dtype += group(integer(3), string(b"<"), b"N" * 3, integer(-1), integer(-1), integer(0)) + b"b"
    state = group(integer(1), group(integer(6)), dtype, b"\x89", string(SIX.tobytes())) + b"b"
    content = pickled(b"}" + string(b"res2.weight") + empty + state + b"s")
    _assert_same(read(content), {"res2.weight": SIX})


def test_columns_first_and_big_endian_arrays_become_plain_ones(read, tmp_path):
    square = np.arange(6, dtype=">f4").reshape(2, 3)
    arrays = {"fortran": np.asfortranarray(square.astype("<f4")), "big": square}
    plain = dict.fromkeys(arrays, square.astype("<f4"))
    for content in (pickle.dumps(arrays), _npz(arrays, tmp_path)):
        _assert_same(read(content), plain)


def test_bfloat16_safetensors(read):
    array = SIX.astype(ml_dtypes.bfloat16)
    _assert_same(read(_safetensors_of({"a": array})), {"a": array})


def test_a_part_of_a_storage_in_the_old_format(read):
    view = group(text("part"), integer(2), integer(3))
    items = {"part": tensor(storage("0", "Float", 6, view), 1, [2], [1])}
    content = torch_legacy(pickled(dictionary(items)), [("0", 6, SIX.tobytes())])
    _assert_same(read(content), {"part": SIX[3:5]})
    outside = group(text("part"), integer(4), integer(3))
    items = {"part": tensor(storage("0", "Float", 6, outside), 0, [2], [1])}
    content = torch_legacy(pickled(dictionary(items)), [("0", 6, SIX.tobytes())])
    _refused(read, content, "reaches outside")


# Tensors that lie.


@pytest.mark.parametrize(
    ("view", "complaint"),
    [
        ((0, [7], [1]), "reaches element 6"),
        ((6, [1], [1]), "reaches element 6"),
        ((1, [2, 3], [3, 1]), "reaches element 6"),
        ((0, [2], [6]), "reaches element 6"),
        ((5, [6], [-1]), "negative"),
        ((-1, [1], [1]), "broken offset"),
        ((0, [-6], [1]), "negative"),
        ((0, [2, 3], [1]), "broken offset"),
        ((0, [2**62], [0]), "decompression bomb"),
        ((0, [2**31] * 3, [0] * 3), "decompression bomb"),
        ((0, [2**62, 2], [1, 2**62]), "reaches element"),
        ((0, [0, 2**62, 2**62], [0, 0, 0]), "absurd shape"),
        ((0, [1] * 33, [1] * 33), "no usable shape"),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_a_view_that_leaves_its_storage_is_refused(read, view, complaint, old):
    stored = storage("0", "Float", 6, *([b"N"] if old else []))
    pickle_bytes = pickled(dictionary({"a": tensor(stored, *view)}))
    if old:
        content = torch_legacy(pickle_bytes, [("0", 6, SIX.tobytes())])
    else:
        content = torch_zip(pickle_bytes, {"0": SIX.tobytes()})
    _refused(read, content, complaint)


def test_an_axis_of_one_may_have_any_stride(read):
    items = {"a": tensor(storage("0", "Float", 6), 0, [1, 6], [2**62, 1])}
    found = read(torch_zip(pickled(dictionary(items)), {"0": SIX.tobytes()}))
    _assert_same(found, {"a": SIX[None]})


@pytest.mark.parametrize(
    ("numel", "content", "complaint"),
    [
        (6, SIX.tobytes()[:-1], "declares 6 x float32 = 24 bytes and has 23"),
        (6, SIX.tobytes() + b"x", "has 25"),
        (2**61, SIX.tobytes(), "has 24"),
        (-1, b"", "no usable key or size"),
    ],
)
def test_a_storage_of_a_wrong_size_is_refused(read, numel, content, complaint):
    items = {"a": tensor(storage("0", "Float", numel), 0, [1], [1])}
    _refused(read, torch_zip(pickled(dictionary(items)), {"0": content}), complaint)


def test_one_storage_of_two_types_is_refused(read):
    items = {
        "a": tensor(storage("0", "Float", 6), 0, [1], [1]),
        "b": tensor(storage("0", "Int", 6), 0, [1], [1]),
    }
    _refused(read, torch_zip(pickled(dictionary(items)), {"0": SIX.tobytes()}), "two ways")


def test_a_negated_view_is_refused(read):
    view = (integer(0), group(integer(6)), group(integer(1)))
    function = name("torch._utils", "_rebuild_tensor_v2")
    flags = dictionary({"neg": b"\x88"})
    item = call(function, storage("0", "Float", 6), *view, b"\x89", ORDERED_DICT, flags)
    _refused(
        read,
        torch_zip(pickled(dictionary({"a": item})), {"0": SIX.tobytes()}),
        "negated or conjugate view",
    )


def test_data_that_is_missing_is_named(read):
    items = dictionary({"a": whole("0", SIX)})
    _refused(read, torch_zip(pickled(items), {}), "storage 0 is missing")
    items = dictionary({"a": whole("../../etc/passwd", SIX)})
    _refused(read, torch_zip(pickled(items), {"0": SIX.tobytes()}), "is missing")


def test_bools_of_any_byte_become_true_or_false(read):
    items = dictionary({"a": tensor(storage("0", "Bool", 3), 0, [3], [1])})
    found = read(torch_zip(pickled(items), {"0": b"\x00\x01\x07"}))
    assert found["a"].tobytes() == b"\x00\x01\x01"


# Files that are something else.


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x89PNG\r\n\x1a\n", "neither"),
        (pickle.dumps([1, 2]), "holds a list, not a state dict"),
        (pickle.dumps({}), "state dict is empty"),
        (pickle.dumps({"a": SIX, "b": "text"}), r"not arrays: b \(a str\)"),
        (pickle.dumps({"a": {"b": SIX}}), r"not arrays: a \(a dict\)"),
        (pickle.dumps({1: SIX}), "a key of type int"),
        (pickle.dumps({"a": SIX})[:-4], "cut short"),
        (pickle.dumps({"a": SIX}) + b"x", "1 bytes follow the end"),
        (zip_file([("readme.txt", b"hello")]), "not an array"),
        (zip_file([]), "state dict is empty"),
    ],
)
def test_other_files_are_named(read, content, complaint):
    _refused(read, content, complaint)


def test_paths_that_cannot_be_opened_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.pth"):
        with pytest.raises(WeightsError, match=f"{path}: cannot be read"):
            read_state_dict(path)


def test_numbers_are_arrays_too(read):
    found = read(pickle.dumps({"a": SIX, "steps": 3, "rate": 0.5, "np": np.float32(2)}))
    assert [found[key].shape for key in ("steps", "rate", "np")] == [(), (), ()]
    assert found["np"].dtype == np.float32


def test_strange_names_do_not_reach_the_terminal(read):
    with pytest.raises(WeightsError) as caught:
        read(pickle.dumps({"\x1b[31m" + "x" * 10_000: "text"}))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_strange_keys_of_storages_do_not_reach_the_terminal(read):
    items = dictionary({"a": tensor(storage("\x1b[31m" * 1000, "Float", 6), 9, [1], [1])})
    with pytest.raises(WeightsError) as caught:
        read(torch_zip(pickled(items), {"\x1b[31m" * 1000: SIX.tobytes()}))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000
