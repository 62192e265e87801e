"""Malicious pickles do nothing and are refused, in every file format that holds one."""

import copyreg
import os
import pickle

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
    tar_file,
    text,
    torch_legacy,
    torch_tar_members,
    torch_zip,
)

from retinanet_jax.weights.readers import read_state_dict
from retinanet_jax.weights.weights_error import WeightsError

SYSTEM = name("os", "system")
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """A file that every malicious pickle here tries to make, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sentinel"


COMMAND = text("touch sentinel")
EVIL = call(SYSTEM, COMMAND)


def _reduced(function, *arguments):
    class Evil:
        def __reduce__(self):
            return function, arguments

    return Evil()


def _memoised_name():
    # 'os' and 'system' go through the memo and back, past a first, harmless name.
    stored = text("os") + b"q\x07" + b"0" + text("system") + b"\x94" + b"0"
    return stored + text("collections") + b"0" + b"h\x07" + b"h\x01" + b"\x93"


def _swapped_constructor():
    # The memo entry of an allowed constructor is overwritten, then called through the memo.
    allowed = name("collections", "OrderedDict") + b"q\x05" + b"0"
    return allowed + SYSTEM + b"q\x05" + b"0" + b"h\x05" + group(COMMAND) + b"R"


# What each of them does with the pickle module, or would do with another reader's looser table.
MALICIOUS = {
    "os.system": (pickled(EVIL), "os.system"),
    "posix.system": (pickled(call(name("posix", "system"), COMMAND)), "posix.system"),
    "eval": (
        pickle.dumps(_reduced(eval, "open('sentinel', 'w').close()"), protocol=4),
        "builtins.eval",
    ),
    "exec in protocol 0": (
        pickle.dumps(_reduced(exec, "open('sentinel', 'w').close()"), protocol=0),
        "__builtin__.exec",
    ),
    "getattr": (
        pickled(call(name("builtins", "getattr"), name("os", "path"), text("join"))),
        "builtins.getattr",
    ),
    "import": (pickled(call(name("builtins", "__import__"), text("antigravity"))), "__import__"),
    "subprocess": (pickle.dumps(_reduced(os.popen, "touch sentinel")), "os.popen"),
    "nested in a dictionary": (
        pickled(dictionary({"model": dictionary({"a": EVIL})})),
        "os.system",
    ),
    "nested in arguments": (pickled(call(name("collections", "OrderedDict"), EVIL)), "os.system"),
    "nested in a tensor": (
        pickled(call(REBUILD, EVIL, integer(0), integers([1]), integers([1]), b"\x89", EVIL)),
        "os.system",
    ),
    "nested in an array": (
        pickled(call(RECONSTRUCT, name("numpy", "ndarray"), EVIL, EVIL)),
        "os.system",
    ),
    "nested in a state": (pickled(ORDERED_DICT + EVIL + b"b"), "os.system"),
    "dropped at once": (pickled(EVIL + b"0" + b"}"), "os.system"),
    "behind the end": (pickled(b"}") + pickled(EVIL), "behind its end"),
    "through the memo": (pickled(_memoised_name() + group(COMMAND) + b"R"), "os.system"),
    "a swapped constructor": (pickled(_swapped_constructor()), "os.system"),
    "a stack of names": (pickled(text("os") + text("system") + b"\x93"), "os.system"),
    "a dotted name": (
        pickled(text("collections") + text("OrderedDict.fromkeys.__class__") + b"\x93"),
        "OrderedDict.fromkeys",
    ),
    "a dotted module": (pickled(text("collections.OrderedDict") + text("x") + b"\x93"), "refused"),
    "names that are no text": (pickled(integer(1) + text("system") + b"\x93"), "no text"),
    "INST": (b"(S'touch sentinel'\nios\nsystem\n.", "os.system"),
    "INST of a constructor": (b"(icollections\nOrderedDict\n.", "INST"),
    "OBJ": (b"(" + SYSTEM + COMMAND + b"o.", "os.system"),
    "OBJ of a constructor": (b"(" + name("collections", "OrderedDict") + b"o.", "OBJ"),
    "NEWOBJ": (pickled(name("collections", "OrderedDict") + b")\x81"), "NEWOBJ"),
    "NEWOBJ_EX": (pickled(name("collections", "OrderedDict") + b")}\x92"), "NEWOBJ_EX"),
    "EXT1": (pickled(b"\x82\xf0" + group(COMMAND) + b"R"), "EXT1"),
    "EXT2": (pickled(b"\x83\xf0\x00" + group(COMMAND) + b"R"), "EXT2"),
    "EXT4": (pickled(b"\x84\xf0\x00\x00\x00" + group(COMMAND) + b"R"), "EXT4"),
    "a persistent id": (pickled(text("x") + b"Q"), "persistent id"),
    "a persistent id in protocol 0": (b"(Px\n.", "PERSID"),
    "a buffer from elsewhere": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "a set": (b"\x80\x04\x8f.", "EMPTY_SET"),
    "an unknown opcode": (b"\x80\x02\xff.", "0xff"),
    "a later protocol": (b"\x80\x06}.", "protocol above"),
    "torch.load": (pickled(call(name("torch", "load"), COMMAND)), "torch.load"),
    "torch's nested pickles": (
        pickled(call(name("torch.storage", "_load_from_bytes"), b"C\x02N.")),
        "_load_from_bytes",
    ),
    "numpy.load": (pickled(call(name("numpy", "load"), text("sentinel"))), "numpy.load"),
    "a class of someone's": (pickled(name("models.yolo", "Model") + b")\x81"), "models.yolo.Model"),
    "a call of a text": (pickled(text("os.system") + group(COMMAND) + b"R"), "calls str"),
    "a call of a storage": (
        pickled(call(name("torch", "FloatStorage"), integer(1))),
        "calls torch",
    ),
    "a call of ndarray": (pickled(call(name("numpy", "ndarray"), integer(1))), "calls numpy.nd"),
    "a call with a list": (pickled(name("collections", "OrderedDict") + b"]R"), "no tuple"),
    "state for a constructor": (
        pickled(name("collections", "OrderedDict") + dictionary({"build": EVIL[:-1]}) + b"b"),
        "refused|damaged",
    ),
    "state for a tuple": (pickled(b")" + b"}" + b"b"), "state of a tuple"),
    "state for a tensor": (pickled(b"N}b"), "state of a NoneType"),
    "slots": (pickled(ORDERED_DICT + b"N" + dictionary({"update": b"N"}) + b"\x86b"), "state of"),
    "a dtype of objects": (pickled(call(name("numpy", "dtype"), text("O8"))), "numpy dtype"),
    "a dtype of fields": (
        pickled(
            call(name("numpy", "dtype"), text("f4"))
            + group(integer(3), text("|"), b"N", group(text("a")), b"}")
            + b"b"
        ),
        "has fields",
    ),
    "a subclass of ndarray": (
        pickled(call(RECONSTRUCT, name("numpy", "memmap"), b")", b"C\x01b")),
        "numpy.memmap",
    ),
    "an array of texts": (pickled(call(RECONSTRUCT, text("x"), b")", text("b"))), "no ndarray"),
    "another codec": (
        pickled(call(name("_codecs", "encode"), text("x"), text("rot13"))),
        "latin-1",
    ),
    "a key that is a tuple": (pickled(b"}" + group(text("a")) + b"Ns"), "keys are scalars"),
}


def test_these_pickles_are_live(sentinel):
    """Python's own unpickler runs them, so that refusing them means something."""
    for label in ("os.system", "eval", "exec in protocol 0", "through the memo", "INST"):
        pickle.loads(MALICIOUS[label][0])
        assert sentinel.exists(), label
        sentinel.unlink()
    copyreg.add_extension("os", "system", 0xF0)
    try:
        pickle.loads(MALICIOUS["EXT1"][0])
        assert sentinel.exists()
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


@pytest.mark.parametrize("label", MALICIOUS)
@pytest.mark.parametrize("layout", ["pickle", "zip", "legacy", "tar"])
def test_malicious_pickles_do_nothing_and_are_refused(sentinel, label, layout):
    content, complaint = MALICIOUS[label]
    if layout == "zip":
        content = torch_zip(content, {})
    elif layout == "legacy":
        content = torch_legacy(content, [])
    elif layout == "tar":
        content = tar_file(torch_tar_members({}) | {"pickle": content})
    path = sentinel.parent / "weights.pth"
    path.write_bytes(content)
    copyreg.add_extension("os", "system", 0xF0)
    try:
        with pytest.raises(WeightsError, match=r"weights\.pth: ") as caught:
            read_state_dict(path)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert not sentinel.exists()
    if layout == "pickle":
        caught.match(complaint)


def test_storages_that_are_none_are_refused(sentinel):
    bad_ids = [
        text("0"),
        group(text("module"), SYSTEM, text("0"), text("cpu"), integer(1)),
        group(text("module"), name("torch", "FloatStorage"), text("0"), text("cpu"), integer(1)),
        group(text("storage"), name("collections", "OrderedDict"), text("0"), b"N", integer(1)),
        group(text("storage"), name("torch", "FloatStorage"), integer(0), b"N", integer(1)),
        group(text("storage"), name("torch", "FloatStorage"), text("0"), b"N", text("1")),
        group(text("storage")),
    ]
    path = sentinel.parent / "weights.pth"
    for bad_id in bad_ids:
        path.write_bytes(torch_zip(pickled(bad_id + b"Q"), {"0": bytes(4)}))
        with pytest.raises(WeightsError):
            read_state_dict(path)
    assert not sentinel.exists()
