"""A reader of pickles that runs nothing: it knows tensors, arrays and plain containers only.

Python's own unpickler calls whatever the file names. This one is an interpreter of the pickle
opcodes (described in Python's pickletools) which calls nothing but the functions of
`constructors.py`: a name that is not in that table stops the reading before anything is built.
Every opcode costs bounded memory and time: sizes are compared with the bytes that are left,
the memo is a dictionary (a large index costs nothing), and keys of dictionaries are scalars.
"""

import mmap
from collections.abc import Callable
from typing import Any

from retinanet_jax.weights.constructors import CONSTRUCTORS
from retinanet_jax.weights.pickle_machine import MEND, Buildable, Constructor, Machine
from retinanet_jax.weights.tensors import Budget

HIGHEST_PROTOCOL = 5
# A detector with its optimizer takes under 100,000; each opcode may cost 100 bytes.
MAX_OPCODES = 1_000_000
MAX_INTEGER_BYTES = 32


class Unpickler(Machine):
    """Reads pickles that hold tensors, arrays, numbers, texts and containers of them."""

    def __init__(self, data: bytes | mmap.mmap, budget: Budget, **options: Any):
        super().__init__(data, CONSTRUCTORS, budget, **options)

    def load(self) -> object:
        """The object of the next pickle; raises WeightsError when it is damaged or not allowed."""
        self.stack, self.marks, self.memo = [], [], {}
        for _ in range(MAX_OPCODES):
            code = self.take(1)
            if code == b".":
                return self.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise self.broken(f"has the opcode {_refused(code)}, which is refused{MEND}")
            operation(self)
        raise self.broken(f"has more than {MAX_OPCODES} opcodes{MEND}")


def _mark(machine: Machine) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _drop(machine: Machine) -> None:
    machine.pop()


def _drop_group(machine: Machine) -> None:
    machine.pop_mark()


def _protocol(machine: Machine) -> None:
    if machine.take(1)[0] > HIGHEST_PROTOCOL:
        raise machine.broken(f"is of a protocol above {HIGHEST_PROTOCOL}")


def _frame(machine: Machine) -> None:
    # A frame is a hint for reading ahead; only its size can be wrong.
    if machine.number("<Q") > machine.end - machine.position:
        raise machine.broken("is cut short: a frame is longer than the file")


def _memoize(machine: Machine, index: int) -> None:
    machine.top(object)
    machine.memo[index] = machine.stack[-1]


def _recall(machine: Machine, index: int) -> None:
    if index not in machine.memo:
        raise machine.broken(f"recalls entry {index}, which was never stored")
    machine.push(machine.memo[index])


def _index(machine: Machine) -> int:
    return _decimal(machine, machine.line())


def _decimal(machine: Machine, text: bytes) -> int:
    digits = text.rstrip(b"L")
    if len(digits) > 2 * MAX_INTEGER_BYTES or not digits.lstrip(b"-").isdigit():
        raise machine.broken("has a broken integer")
    try:
        return int(digits)
    except ValueError as error:
        raise machine.broken("has a broken integer") from error


def _text_integer(machine: Machine) -> None:
    text = machine.line()
    flags = {b"00": False, b"01": True}
    machine.push(flags[text] if text in flags else _decimal(machine, text))


def _long(machine: Machine, count: int) -> None:
    if not 0 <= count <= MAX_INTEGER_BYTES:
        raise machine.broken(f"has an integer of {count} bytes{MEND}")
    machine.push(int.from_bytes(machine.take(count), "little", signed=True))


def _text_float(machine: Machine) -> None:
    text = machine.line()
    try:
        machine.push(float(text[:64]))
    except ValueError as error:
        raise machine.broken("has a broken number") from error


def _unicode(machine: Machine, raw: bytes, encoding: str = "utf-8") -> None:
    try:
        machine.push(raw.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict"))
    except UnicodeDecodeError as error:
        raise machine.broken("has a broken text") from error


def _quoted(machine: Machine) -> None:
    text = machine.line()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in b"'\"" or b"\\" in text:
        raise machine.broken("has a quoted text that is not plain; save it with protocol 2 or up")
    machine.push(text[1:-1].decode("latin-1"))


def _tuple(machine: Machine, count: int) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.push(tuple(reversed(values)))


def _append(machine: Machine) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _extend(machine: Machine) -> None:
    values = machine.pop_mark()
    machine.top(list).extend(values)


def _set_items(machine: Machine, values: list) -> None:
    target = machine.top(dict)
    if len(values) % 2:
        raise machine.broken("has a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        machine.check_key(key)
        target[key] = value


def _dict(machine: Machine) -> None:
    values = machine.pop_mark()
    machine.push({})
    _set_items(machine, values)


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _global(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.push(machine.resolve(module.decode("latin-1"), name.decode("latin-1")))


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if type(name) is not str or type(module) is not str:
        raise machine.broken("asks for a name that is no text")
    machine.push(machine.resolve(module, name))


def _instance(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.resolve(module.decode("latin-1"), name.decode("latin-1"))
    raise machine.broken(f"has the opcode INST, which is refused{MEND}")


def _reduce(machine: Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not isinstance(function, Constructor) or function.build is None:
        name = function.name if isinstance(function, Constructor) else type(function).__name__
        raise machine.broken(f"calls {name}, which is no constructor: refused{MEND}")
    if type(arguments) is not tuple:
        raise machine.broken(f"calls {function.name} with something that is no tuple")
    machine.push(function.build(arguments, machine.budget))


def _build(machine: Machine) -> None:
    state = machine.pop()
    target = machine.top(object)
    if isinstance(target, Buildable):
        target.set_state(state, machine.budget)
    # torch keeps the versions of its modules as an attribute, _metadata, of the state dict.
    elif not (type(target) is dict and type(state) is dict):
        raise machine.broken(f"sets the state of a {type(target).__name__}: refused{MEND}")


def _persistent(machine: Machine) -> None:
    if machine.persistent_load is None:
        raise machine.broken(f"has a persistent id, which has no meaning here: refused{MEND}")
    machine.push(machine.persistent_load(machine.pop()))


def _refused(code: bytes) -> str:
    return _REFUSED.get(code, f"0x{code.hex()}, which no pickle has")


_REFUSED = {
    b"o": "OBJ",
    b"P": "PERSID",
    b"\x81": "NEWOBJ",
    b"\x82": "EXT1",
    b"\x83": "EXT2",
    b"\x84": "EXT4",
    b"\x8f": "EMPTY_SET",
    b"\x90": "ADDITEMS",
    b"\x91": "FROZENSET",
    b"\x92": "NEWOBJ_EX",
    b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER",
}

_OPERATIONS: dict[bytes, Callable[[Machine], None]] = {
    # The stack, the memo, the frame of the pickle.
    b"(": _mark,
    b"0": _drop,
    b"1": _drop_group,
    b"2": lambda m: m.push(m.top(object)),
    b"\x80": _protocol,
    b"\x95": _frame,
    b"g": lambda m: _recall(m, _index(m)),
    b"h": lambda m: _recall(m, m.number("<B")),
    b"j": lambda m: _recall(m, m.number("<I")),
    b"p": lambda m: _memoize(m, _index(m)),
    b"q": lambda m: _memoize(m, m.number("<B")),
    b"r": lambda m: _memoize(m, m.number("<I")),
    b"\x94": lambda m: _memoize(m, len(m.memo)),
    # Numbers and constants.
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _text_integer,
    b"L": _text_integer,
    b"F": _text_float,
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"G": lambda m: m.push(m.number(">d")),
    b"\x8a": lambda m: _long(m, m.number("<B")),
    b"\x8b": lambda m: _long(m, m.number("<i")),
    # Texts and bytes. Python 2 strings become text, byte for byte, as detectron2 reads them.
    b"S": _quoted,
    b"V": lambda m: _unicode(m, m.line(), "raw-unicode-escape"),
    b"T": lambda m: m.push(m.take(m.number("<i")).decode("latin-1")),
    b"U": lambda m: m.push(m.take(m.number("<B")).decode("latin-1")),
    b"X": lambda m: _unicode(m, m.take(m.number("<I"))),
    b"\x8c": lambda m: _unicode(m, m.take(m.number("<B"))),
    b"\x8d": lambda m: _unicode(m, m.take(m.number("<Q"))),
    b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"C": lambda m: m.push(m.take(m.number("<B"))),
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))),
    b"\x96": lambda m: m.push(m.take(m.number("<Q"))),
    # Containers.
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"\x85": lambda m: _tuple(m, 1),
    b"\x86": lambda m: _tuple(m, 2),
    b"\x87": lambda m: _tuple(m, 3),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.pop_mark()),
    b"a": _append,
    b"e": _extend,
    b"}": lambda m: m.push({}),
    b"d": _dict,
    b"s": _set_item,
    b"u": lambda m: _set_items(m, m.pop_mark()),
    # Names and objects.
    b"c": _global,
    b"\x93": _stack_global,
    b"i": _instance,
    b"R": _reduce,
    b"b": _build,
    b"Q": _persistent,
}
