"""Which collectives a compiled program has, read from its text."""

import math
import re
from collections import Counter

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
_LINE = re.compile(rf"= (.*?) ({KINDS})(?:-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def collectives(program: str) -> Counter:
    """How often an array of so many numbers goes through a collective: (kind, dtype, numbers).

    The compiler joins several arrays into one collective as it likes; each is counted by itself.
    """
    found: Counter = Counter()
    for result, kind in _LINE.findall(program):
        for dtype, shape in _ARRAY.findall(result):
            found[kind, dtype, math.prod(int(n) for n in shape.split(",") if n)] += 1
    return found
