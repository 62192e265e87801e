"""Reads the text of a compiled program (HLO): collectives, kernels, bytes, operations, cycles."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
    *("collective-permute", "collective-broadcast"),
)
BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4}
BYTES |= {"f32": 4, "s64": 8, "u64": 8, "f64": 8}
# Instructions of a program that start nothing on the device.
_FREE = {"parameter", "get-tuple-element", "bitcast", "constant", "tuple", "after-all"}

_COLLECTIVE = re.compile(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"\s([a-z][\w\-]*)\(")
_ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')


class Tensor(NamedTuple):
    """Type and shape of an array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The size in bytes, without the padding of tiles."""
        return BYTES[self.dtype] * math.prod(self.shape)


class Kernel(NamedTuple):
    """An instruction of the program's main sequence that runs on the device; a loop counts as one.

    Attributes:
        op_name: name of the JAX operation it comes from, 'jit(f)/RetinaNet/backbone/...', or ''.
        moved: bytes of its inputs and outputs.
        operations: operations of a cuDNN convolution, two for each multiply-add; otherwise 0.
        dtype: type of a convolution's inputs.
        highest: True for a convolution at model.precision 'highest'.
    """

    op_name: str
    moved: int
    operations: int = 0
    dtype: str = ""
    highest: bool = False


def collectives(text: str) -> Counter[str]:
    """Counts the collectives of each kind in the program; one in a loop counts once."""
    return Counter(_COLLECTIVE.findall(text))


def collectives_in_loops(text: str) -> int:
    """Counts the collectives that a loop repeats."""
    lines = (line for line in text.splitlines() if _COLLECTIVE.search(line))
    return sum("/while/body" in op_name(line) for line in lines)


def estimated_cycles(text: str) -> Counter[str]:
    """Returns libtpu's estimated cycles by JAX operation; the body of a loop counts once."""
    total: Counter[str] = Counter()
    for line in text.splitlines():
        if found := _CYCLES.search(line):
            total[op_name(line)] += int(found[1])
    return total


def op_name(line: str) -> str:
    """Returns the JAX operation that an instruction comes from, or ''."""
    found = _OP_NAME.search(line)
    return found[1] if found else ""


def kernels(text: str) -> Iterator[Kernel]:
    """Returns the kernels of a program, in the order of its main sequence."""
    defined: dict[str, list[Tensor]] = {}
    for line in text[text.index("\nENTRY") :].splitlines()[2:]:
        instruction = _INSTRUCTION.match(line)
        opcode = instruction and _OPCODE.search(instruction[2])
        if not opcode:
            continue
        rest = instruction[2]
        outputs = defined[instruction[1]] = tensors(rest[: opcode.start()])
        if opcode[1] in _FREE or opcode[1].endswith("-done"):
            continue
        names = re.findall(r"%([\w.\-]+)", _arguments(rest[opcode.end() - 1 :]))
        inputs = [defined.get(name, []) for name in names]
        moved = sum(tensor.size for group in (*inputs, outputs) for tensor in group)
        target = _TARGET.search(rest)
        if target and target[1].startswith("__cudnn$conv"):
            operands = [group[0] for group in inputs[:2]]
            count = convolution_operations(target[1], operands, outputs[0])
            highest = "operand_precision={highest" in rest
            yield Kernel(op_name(line), moved, count, operands[0].dtype, highest)
        else:
            yield Kernel(op_name(line), moved)


def tensors(text: str) -> list[Tensor]:
    """Parses the arrays of a type such as '(bf16[2,3]{1,0}, u8[0]{0})'."""
    return [
        Tensor(dtype, tuple(int(n) for n in shape.split(",") if n))
        for dtype, shape in _ARRAY.findall(text)
    ]


def convolution_operations(target: str, operands: list[Tensor], output: Tensor) -> int:
    """Counts the operations of a cuDNN convolution: 2 per output position and number of a kernel.

    Args:
        target: name of the convolution; 'BackwardInput' or 'BackwardFilter' marks a gradient.
        operands: image and kernel; for BackwardInput, the gradient of the output and the kernel;
            for BackwardFilter, the image and the gradient of the output. Images are [b h w c].
        output: array that the convolution writes.
    """
    if "BackwardFilter" in target:
        positions, kernel = operands[1], output
    elif "BackwardInput" in target:
        positions, kernel = operands
    else:
        positions, kernel = output, operands[1]
    return 2 * math.prod(positions.shape[:3]) * math.prod(kernel.shape)


def _arguments(text: str) -> str:
    """The part of a text that starts with '(' up to the matching ')'."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[:at]
    return text
