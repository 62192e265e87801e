"""The machine that a pickle is read on: its stack, memo, bytes and the names that it may use."""

import mmap
import struct
from collections.abc import Callable, Mapping

from retinanet_jax.weights.tensors import Budget
from retinanet_jax.weights.weights_error import WeightsError, shown

MEND = (
    "; nothing was run. If you trust the file, load it where it was made and save only its arrays,"
    " for example with safetensors"
)


class Constructor:
    """A name that a pickle may use, and what stands for it here.

    Attributes:
        name: the full name in the pickle, such as 'collections.OrderedDict'.
        build: (arguments, budget) -> object; None where the name may only be mentioned.
    """

    def __init__(self, name: str, build: Callable[[tuple, Budget], object] | None = None):
        self.name, self.build = name, build


class Buildable:
    """An object whose state comes in a second step (the opcode BUILD)."""

    def set_state(self, state: object, budget: Budget) -> None:
        """Takes the state; raises WeightsError for any state but the expected one."""
        raise WeightsError(f"a state of type {type(state).__name__} cannot be set")


class Machine:
    """What the opcodes of a pickle work on.

    Args:
        data: the bytes; anything that slices into bytes.
        constructors: (module, name) -> what stands for it; everything else is refused.
        budget: what copies are charged to.
        start, end: the range of `data` to read in.
        persistent_load: turns a persistent id into an object; without it such ids are refused.

    Attributes:
        position: the first byte that was not read.
    """

    def __init__(
        self,
        data: bytes | mmap.mmap,
        constructors: Mapping[tuple[str, str], Constructor],
        budget: Budget,
        *,
        start: int = 0,
        end: int | None = None,
        persistent_load: Callable[[object], object] | None = None,
    ):
        self.data, self.position = data, start
        self.end = len(data) if end is None else end
        self.constructors, self.budget = constructors, budget
        self.persistent_load = persistent_load
        self.stack: list = []
        self.marks: list[list] = []
        self.memo: dict[int, object] = {}

    def broken(self, what: str) -> WeightsError:
        """The error that says at which byte the pickle went wrong."""
        return WeightsError(f"the pickle {what} (before byte {self.position})")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if not 0 <= count <= self.end - self.position:
            left = self.end - self.position
            raise self.broken(f"is cut short: {count} bytes are announced, {left} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, layout: str) -> int | float:
        """The next number, of a `struct` layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> bytes:
        """The bytes up to the next end of line, without it."""
        stop = self.data.find(b"\n", self.position, self.end)
        if stop < 0:
            raise self.broken("is cut short: a line has no end")
        return self.take(stop + 1 - self.position)[:-1]

    def push(self, value: object) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def pop(self) -> object:
        """Takes the last value off the stack."""
        if not self.stack:
            raise self.broken("takes a value from an empty stack: the file is damaged")
        return self.stack.pop()

    def top(self, kind: type) -> object:
        """The last value of the stack, which has to be of a kind."""
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise self.broken(f"adds to something that is no {kind.__name__}")
        return self.stack[-1]

    def pop_mark(self) -> list:
        """The values since the last mark."""
        if not self.marks:
            raise self.broken("ends a group that it never began: the file is damaged")
        values, self.stack = self.stack, self.marks.pop()
        return values

    def resolve(self, module: str, name: str) -> Constructor:
        """What stands for a global name; raises WeightsError for all but the constructors."""
        if (module, name) not in self.constructors:
            full = f"{shown(module)}.{shown(name)}"
            raise self.broken(f"asks for {full}, which makes no tensor or array: refused{MEND}")
        return self.constructors[module, name]

    def check_key(self, key: object) -> None:
        """Raises WeightsError for a key of a dictionary that is no scalar.

        The hash of a tuple of tuples of tuples can take exponential time.
        """
        if key is not None and type(key) not in (str, int, float, bool, bytes):
            raise self.broken(f"uses a {type(key).__name__} as a key; keys are scalars here")
