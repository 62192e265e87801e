"""Malicious pickles have no effect, in every file format that holds one."""

import argparse
import copyreg
import pickle
import sys

import numpy as np
import pytest
from checkpoint_writers import (
    ORDERED_DICT,
    call,
    dictionary,
    group,
    integer,
    integers,
    name,
    pickled,
    storage,
    tensor,
    text,
    torch_legacy,
    torch_zip,
    whole,
)

from retinanet_jax.weights import pickle_constructors
from retinanet_jax.weights.readers import read_state_dict
from retinanet_jax.weights.weights_error import WeightsError

SYSTEM = name("os", "system")
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
ORDERED = name("collections", "OrderedDict")
COMMAND = text("touch sentinel")
EVIL = call(SYSTEM, COMMAND)
SIX = np.arange(6, dtype=np.float32)

watched = []  # names of the audit events since it was last cleared


def _watch(event, arguments):
    if event in ("os.system", "subprocess.Popen", "os.posix_spawn", "pickle.find_class"):
        watched.append(event)


sys.addaudithook(_watch)


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """A file that the malicious pickles try to make, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sentinel"


def _reduced(function, *arguments, protocol=2):
    """The opcodes of an object that pickles itself as a call."""

    class Evil:
        def __reduce__(self):
            return function, arguments

    content = pickle.dumps(Evil(), protocol=protocol)
    return content[2 if protocol else 0 : -1]


def _memoised_name():
    # 'os' and 'system' through the memo, after a harmless name.
    stored = text("os") + b"q\x07" + b"0" + text("system") + b"q\x08" + b"0"
    return stored + text("collections") + b"0" + b"h\x07" + b"h\x08" + b"\x93"


def _build(target, state):
    return target + state + b"b"


def _slots(items):
    return b"N" + dictionary(items) + b"\x86"


# Opcodes that leave one object on the stack.
MALICIOUS = {
    "os.system": EVIL,
    "posix.system": call(name("posix", "system"), COMMAND),
    "nt.system in protocol 0": b"cnt\nsystem\n(Vtouch sentinel\ntR",
    "eval": _reduced(eval, "open('sentinel', 'w').close()"),
    "exec in protocol 0": _reduced(exec, "open('sentinel', 'w').close()", protocol=0),
    "getattr": call(call(name("builtins", "getattr"), name("os", "path"), text("os")), COMMAND),
    "import": call(name("builtins", "__import__"), text("antigravity")),
    "subprocess": call(name("subprocess", "Popen"), COMMAND),
    "a list of calls": call(
        name("builtins", "list"), call(name("builtins", "map"), SYSTEM, b"](" + COMMAND + b"e")
    ),
    "functools.partial": call(name("functools", "partial"), SYSTEM, COMMAND) + b")R",
    "operator.methodcaller": call(
        call(name("operator", "methodcaller"), text("system"), COMMAND), name("os", "path")
    ),
    "runpy": call(name("runpy", "run_path"), text("sentinel")),
    "code objects": call(call(name("types", "FunctionType"), b"N", b"}")),
    "pickle.loads": call(name("pickle", "loads"), b"C" + bytes([len(EVIL) + 1]) + EVIL + b"."),
    "copyreg": call(name("copyreg", "_reconstructor"), SYSTEM, name("builtins", "object"), b"N"),
    "copyreg.__newobj__": call(name("copyreg", "__newobj__"), SYSTEM, COMMAND),
    "nested in arguments": call(ORDERED, b"](" + group(COMMAND, EVIL) + b"e"),
    "nested in a tensor": call(
        REBUILD, EVIL, integer(0), integers([1]), integers([1]), b"\x89", EVIL
    ),
    "nested in an array": call(RECONSTRUCT, name("numpy", "ndarray"), EVIL, EVIL),
    "nested in a state": _build(ORDERED_DICT, EVIL),
    "dropped": EVIL + b"0N",
    "through the memo": _memoised_name() + group(COMMAND) + b"R",
    "a replaced constructor": ORDERED
    + b"q\x05"
    + b"0"
    + SYSTEM
    + b"q\x05"
    + b"0h\x05"
    + group(COMMAND)
    + b"R",
    "a stack of names": text("os") + text("system") + b"\x93" + group(COMMAND) + b"R",
    "a dotted name": text("collections") + text("OrderedDict.fromkeys.__class__") + b"\x93",
    "a dotted module": text("os.path") + text("os.system") + b"\x93" + group(COMMAND) + b"R",
    "INST": b"(S'touch sentinel'\nios\nsystem\n",
    "INST of a constructor": b"(icollections\nOrderedDict\n",
    "OBJ": b"(" + SYSTEM + COMMAND + b"o",
    "OBJ of a constructor": b"(" + ORDERED + b"o",
    "NEWOBJ": SYSTEM + group(COMMAND) + b"\x81",
    "NEWOBJ_EX": SYSTEM + group(COMMAND) + dictionary({"command": COMMAND}) + b"\x92",
    "EXT1": b"\x82\xf0" + group(COMMAND) + b"R",
    "EXT2": b"\x83\xf0\x00" + group(COMMAND) + b"R",
    "EXT4": b"\x84\xf0\x00\x00\x00" + group(COMMAND) + b"R",
    "torch.load": call(name("torch", "load"), COMMAND),
    "nested pickles of torch": call(name("torch.storage", "_load_from_bytes"), b"C\x02N."),
    "numpy.load": call(name("numpy", "load"), text("sentinel")),
    "a class": _build(name("models.yolo", "Model") + b")\x81", dictionary({"__reduce__": EVIL})),
    "a set": b"\x8f(" + EVIL + b"\x90",
    "a frozenset": b"(" + EVIL + b"\x91",
    "a factory": call(name("collections", "defaultdict"), SYSTEM) + COMMAND + b"Ns",
    # BUILD, which sets attributes
    "a state that sets __setstate__": _build(
        _build(name("models", "Net"), dictionary({"__setstate__": SYSTEM})), COMMAND
    ),
    # Interpreter state, which appending and setting would change
    "sys.path": name("sys", "path") + text("evil") + b"a",
    "sys.modules": name("sys", "modules") + text("json") + b"Ns",
    "builtins": name("builtins", "__dict__") + text("len") + SYSTEM + b"s",
}
# These are errors wherever they are: the file is damaged.
BROKEN = {
    "names that are no text": integer(1) + text("system") + b"\x93",
    "a later protocol": b"\x80\x09N",
    "an unknown opcode": b"\xff",
    "an external buffer": b"\x97",
    "a call of a text": text("os.system") + group(COMMAND) + b"R",
    "a call with a number": ORDERED + b"K\x01R",
    "state of a tuple": b")" + dictionary({"a": b"N"}) + b"b",
    "state of a list": b"]" + _slots({"append": SYSTEM}) + b"b",
    "slots of a constructor": _build(ORDERED, _slots({"build": SYSTEM})) + group(COMMAND) + b"R",
    "state of a constructor": _build(REBUILD, dictionary({"build": SYSTEM, "__call__": SYSTEM}))
    + group(COMMAND)
    + b"R",
    "state of a storage type": _build(name("torch", "FloatStorage"), dictionary({"x": SYSTEM})),
    "a dtype with a broken state": _build(call(name("numpy", "dtype"), text("f4")), b"}"),
}


def test_these_pickles_are_live(sentinel):
    """Python's own unpickler runs them, so that reading them means something."""
    live = ("os.system", "eval", "exec in protocol 0", "through the memo", "INST", "NEWOBJ_EX")
    for label in (*live, "functools.partial", "a list of calls", "pickle.loads"):
        try:
            pickle.loads(b"\x80\x02" + MALICIOUS[label] + b".")
        except (TypeError, AttributeError, pickle.UnpicklingError):
            assert label == "NEWOBJ_EX"  # a function has no __new__ of its own
            continue
        assert sentinel.exists(), label
        sentinel.unlink()
    assert "os.system" in watched and "pickle.find_class" in watched


def _file(opcodes, layout):
    content = pickled(opcodes)
    if layout == "zip":
        return torch_zip(content, {"0": SIX.tobytes()})
    if layout == "legacy":
        return torch_legacy(content, [])
    return content


def _read(path, content):
    """Reads a file and asserts that nothing happened beyond that."""
    path.write_bytes(content)
    before, modules = (dict(pickle_constructors.CONSTRUCTORS), list(sys.path)), set(sys.modules)
    copyreg.add_extension("os", "system", 0xF0)
    watched.clear()
    try:
        return read_state_dict(path)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
        assert not watched and len is __builtins__["len"] and "json" in sys.modules
        assert (dict(pickle_constructors.CONSTRUCTORS), list(sys.path)) == before
        assert all(name.startswith("encodings.") for name in set(sys.modules) - modules)
        assert 0xF0 not in copyreg._extension_cache


@pytest.mark.parametrize("label", MALICIOUS)
@pytest.mark.parametrize("layout", ["pickle", "zip", "legacy"])
def test_beside_the_weights_it_has_no_effect(sentinel, label, layout):
    opcodes = b"}(" + text("evil") + MALICIOUS[label]
    opcodes += text("model") + dictionary({"bias": integer(7)}) + b"u"
    found = _read(sentinel.parent / "weights.pth", _file(opcodes, layout))
    assert found == {"bias": 7}
    assert not sentinel.exists()


@pytest.mark.parametrize("label", MALICIOUS)
@pytest.mark.parametrize("layout", ["pickle", "zip", "legacy"])
def test_among_the_weights_it_is_an_error_that_names_the_key(sentinel, label, layout):
    content = _file(dictionary({"bias": integer(7), "conv.weight": MALICIOUS[label]}), layout)
    with pytest.raises(WeightsError, match=r"weights\.pth: .*not arrays: conv\.weight \("):
        _read(sentinel.parent / "weights.pth", content)
    assert not sentinel.exists()


@pytest.mark.parametrize("label", [*MALICIOUS, *BROKEN])
def test_in_place_of_the_weights_it_is_an_error(sentinel, label):
    content = pickled((MALICIOUS | BROKEN)[label])
    with pytest.raises(WeightsError, match=r"weights\.pth: "):
        _read(sentinel.parent / "weights.pth", content)
    assert not sentinel.exists()


def test_a_pickle_behind_the_pickle_is_refused(sentinel):
    content = pickled(dictionary({"a": integer(1)})) + pickled(EVIL)
    with pytest.raises(WeightsError, match="follow the end"):
        _read(sentinel.parent / "weights.pth", content)


def test_a_tensor_cannot_be_changed_once_it_is_built(sentinel):
    """A view that was inside of its storage stays there."""
    view = tensor(storage("0", "Float", 6), 0, [6], [1])
    for state in (dictionary({"offset": integer(2**40)}), _slots({"offset": integer(2**40)})):
        content = torch_zip(pickled(dictionary({"a": view + state + b"b"})), {"0": SIX.tobytes()})
        with pytest.raises(WeightsError, match="damaged"):
            _read(sentinel.parent / "weights.pth", content)


def test_storages_that_are_none_are_refused(sentinel):
    bad_ids = [
        text("0"),
        group(text("module"), SYSTEM, text("0"), text("cpu"), integer(1)),
        group(text("module"), name("torch", "FloatStorage"), text("0"), text("cpu"), integer(1)),
        group(text("storage"), ORDERED, text("0"), b"N", integer(1)),
        group(text("storage"), name("torch", "FloatStorage"), integer(0), b"N", integer(1)),
        group(text("storage"), name("torch", "FloatStorage"), text("0"), b"N", text("1")),
        group(text("storage")),
    ]
    for bad_id in bad_ids:
        content = torch_zip(pickled(dictionary({"a": bad_id + b"Q"})), {"0": bytes(4)})
        with pytest.raises(WeightsError):
            _read(sentinel.parent / "weights.pth", content)
    assert not sentinel.exists()


# Whole training checkpoints.


class HistoryBuffer:
    """As mmengine's: objects, functions and arrays in its state."""

    def __init__(self):
        self._log_history = np.array([0.5, 0.25])
        self._statistics_methods = {"mean": np.mean, "max": max}


@pytest.mark.parametrize("protocol", range(6))
def test_a_whole_training_checkpoint_opens(tmp_path, protocol):
    checkpoint = {
        "args": argparse.Namespace(lr=0.1, data_path="coco", device=(1, {2, 3})),
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}},
        "optimizer": {"state": {0: {"momentum": SIX}}, "param_groups": [{"lr": np.float64(0.1)}]},
        "rng": np.random.default_rng(0).bit_generator.state,
        "hashes": {(1, 2): frozenset([3]), 2**100: complex(1, 2)},
        "objects": np.array([None, "x"], dtype=object),
        "model": {"weight": SIX, "epoch": np.int64(3)},
    }
    path = tmp_path / "checkpoint.pkl"
    path.write_bytes(pickle.dumps(checkpoint, protocol=protocol))
    found = read_state_dict(path)
    assert list(found) == ["weight", "epoch"]
    np.testing.assert_array_equal(found["weight"], SIX)
    assert found["epoch"].dtype == np.int64 and found["epoch"] == 3


def test_a_tensor_of_an_unknown_type_is_an_error_among_the_weights_only(tmp_path):
    strange = tensor(storage("9", "QInt8", 6), 0, [6], [1])
    inside = dictionary({"a": whole("0", SIX), "b": strange})
    beside = dictionary({"model": dictionary({"a": whole("0", SIX)}), "b": strange})
    path = tmp_path / "weights.pth"
    path.write_bytes(torch_zip(pickled(inside), {"0": SIX.tobytes()}))
    with pytest.raises(WeightsError, match=r"not arrays: b \("):
        read_state_dict(path)
    path.write_bytes(torch_zip(pickled(beside), {"0": SIX.tobytes()}))
    assert list(read_state_dict(path)) == ["a"]
