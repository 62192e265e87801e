"""An ONNX graph under construction; values known in advance are arrays."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 18
# Few runtimes have bfloat16 kernels for CPUs; float32 represents its numbers exactly.
_TYPES = {"bfloat16": np.dtype(np.float32)}

Value = str | np.ndarray
"""An input of a node: the name of another node's output, or a known array."""
Typed = Any  # has a dtype and a shape, whose sizes may be symbolic

_CONDITION = jax.ShapeDtypeStruct((), np.bool_)


def numpy_type(dtype: Any) -> np.dtype:
    """The type that values of a JAX dtype have in the graph."""
    return _TYPES.get(str(dtype)) or np.dtype(dtype)


def tensor_type(dtype: Any) -> int:
    """ONNX's number for a JAX dtype."""
    return helper.np_dtype_to_tensor_dtype(numpy_type(dtype))


def declare(name: str, array: Typed) -> onnx.ValueInfoProto:
    """A value's name, type and shape, as inputs and outputs of graphs have them."""
    shape = [size if isinstance(size, int) else str(size) for size in array.shape]
    return helper.make_tensor_value_info(name, tensor_type(array.dtype), shape)


class Graph:
    """Nodes and initializers."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self._names: dict[tuple, str] = {}  # of the arrays, by content
        self._dimensions: dict[str, str] = {}
        self._count = 0

    def add(self, kind: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or a list of names."""
        names = [self.name_for(kind) for _ in range(outputs)]
        taken = [self.name_of(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, taken, names, **attributes))
        return names[0] if outputs == 1 else names

    def name_of(self, value: Value) -> str:
        """The name of a value; an array becomes an initializer."""
        if isinstance(value, str):
            return value
        value = np.asarray(value, numpy_type(value.dtype))
        content = value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).digest()
        if content not in self._names:  # the levels of the pyramid share the heads' weights
            self._names[content] = self.name_for("array")
            self.arrays.append(numpy_helper.from_array(value, self._names[content]))
        return self._names[content]

    def measure(self, name: str, shape: Sequence[Any]) -> None:
        """Reads the sizes of symbolic dimensions from a graph input of that shape."""
        for axis, size in enumerate(shape):
            if not isinstance(size, int) and str(size) not in self._dimensions:
                self._dimensions[str(size)] = self.add("Shape", name, start=axis, end=axis + 1)

    def shape(self, shape: Sequence[Any]) -> Value:
        """A shape as an int64 vector."""
        parts = [
            np.array([size], np.int64) if isinstance(size, int) else self._dimensions[str(size)]
            for size in shape
        ]
        if all(isinstance(part, np.ndarray) for part in parts):
            return np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return self.add("Concat", *parts, axis=0)

    @contextlib.contextmanager
    def body(self) -> Iterator["Body"]:
        """In this context, nodes are added to the body of a loop."""
        around, self.nodes = self.nodes, []
        try:
            yield Body(self)
        finally:
            self.nodes = around

    def loop(self, goes_on: Value, start: Sequence[Value], body: "Body") -> list[str]:
        """Adds a loop: carried values begin as `start`, and the body gives the next ones.

        Args:
            goes_on: whether to run the body at all.
        """
        # "": no limit to the number of iterations.
        taken = ["", *map(self.name_of, (goes_on, *start))]
        names = [self.name_for("Loop") for _ in start]
        self.nodes.append(helper.make_node("Loop", taken, names, body=body.graph))
        return names

    def name_for(self, kind: str) -> str:
        """A new name."""
        self._count += 1
        return f"{kind}_{self._count}"


class Body:
    """The body of a loop: declare its inputs, add nodes to the graph, declare its outputs."""

    def __init__(self, graph: Graph):
        self._graph = graph

    def inputs(self, types: Sequence[Typed]) -> list[str]:
        """Names of the carried values, which have these types."""
        # ONNX also passes the iteration number and the condition.
        types = [jax.ShapeDtypeStruct((), np.int64), _CONDITION, *types]
        names = [self._graph.name_for("carried") for _ in types]
        self._inputs = list(map(declare, names, types))
        return names[2:]

    def outputs(self, values: Sequence[Value], types: Sequence[Typed]) -> None:
        """Declares the outputs: whether the loop continues, and the carried values."""
        names = [self._graph.add("Identity", value) for value in values]
        outputs = list(map(declare, names, [_CONDITION, *types]))
        self.graph = helper.make_graph(self._graph.nodes, "body", self._inputs, outputs)
