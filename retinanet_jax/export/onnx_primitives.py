"""The translation of each JAX primitive of a detector to ONNX.

Each function takes the graph, an equation of the jaxpr and its inputs, and returns the equation's
outputs. Images are NHWC in JAX and NCHW in ONNX: each convolution is between two transposes, which
runtimes remove in pairs.
"""

import string
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from retinanet_jax.export.onnx_graph import Graph, Value, tensor_type

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
Translation = Callable[..., Any]

# Primitives that are one ONNX node without attributes.
SAME = {
    "abs": "Abs",
    "add": "Add",
    "add_any": "Add",
    "and": "And",
    "ceil": "Ceil",
    "copy": "Identity",
    "div": "Div",
    "eq": "Equal",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "stop_gradient": "Identity",
    "sub": "Sub",
}
REDUCTIONS = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_sum": "ReduceSum"}


def translate(graph: Graph, eqn: Any, inputs: list[Value]) -> list[Value]:
    """The outputs of an equation of a jaxpr.

    Raises:
        NotImplementedError: the primitive, or this use of it, has no translation.
    """
    name = eqn.primitive.name
    if name in SAME:
        return [graph.add(SAME[name], *inputs)]
    if name in REDUCTIONS:
        axes = _ints(eqn.params["axes"])
        return [graph.add(REDUCTIONS[name], *inputs, axes, keepdims=0)]
    if name not in TRANSLATIONS:
        raise NotImplementedError(f"JAX's {name} has no translation to ONNX")
    results = TRANSLATIONS[name](graph, eqn, *inputs)
    return results if isinstance(results, list) else [results]


def _ints(values) -> np.ndarray:
    return np.array(values, np.int64)


def _require(holds: bool, eqn: Any) -> None:
    if not holds:
        raise NotImplementedError(f"this use of {eqn.primitive.name} has no translation to ONNX")


def _not_equal(graph, eqn, x, y):
    return graph.add("Not", graph.add("Equal", x, y))


def _remainder(graph, eqn, x, y):
    return graph.add("Mod", x, y, fmod=1)  # the sign of x, like lax.rem


def _reciprocal_root(graph, eqn, x):
    return graph.add("Reciprocal", graph.add("Sqrt", x))


def _square(graph, eqn, x):
    _require(eqn.params.get("y", 2) == 2, eqn)
    return graph.add("Mul", x, x)


def _round(graph, eqn, x):
    _require(eqn.params["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN, eqn)
    return graph.add("Round", x)


def _clamp(graph, eqn, low, x, high):
    return graph.add("Min", graph.add("Max", x, low), high)


def _reduce_and(graph, eqn, x):
    number = graph.add("Cast", x, to=tensor_type(np.int32))
    least = graph.add("ReduceMin", number, _ints(eqn.params["axes"]), keepdims=0)
    return graph.add("Cast", least, to=tensor_type(np.bool_))


def _select(graph, eqn, which, if_false, if_true):
    _require(eqn.invars[0].aval.dtype == np.bool_, eqn)
    return graph.add("Where", which, if_true, if_false)


def _cast(graph, eqn, x):
    if eqn.invars[0].aval.dtype == eqn.params["new_dtype"]:
        return x
    return graph.add("Cast", x, to=tensor_type(eqn.params["new_dtype"]))


def _reshape(graph, eqn, x, *_):
    return graph.add("Reshape", x, graph.shape(eqn.outvars[0].aval.shape))


def _broadcast(graph, eqn, x, *_):
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    sizes = dict(zip(places, eqn.invars[0].aval.shape, strict=True))
    aligned = [sizes.get(axis, 1) for axis in range(len(shape))]
    x = graph.add("Reshape", x, graph.shape(aligned))
    return graph.add("Expand", x, graph.shape(shape))


def _iota(graph, eqn, *_):
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    end = graph.add("Squeeze", graph.shape([shape[axis]]))
    line = graph.add("Range", np.array(0, np.int64), end, np.array(1, np.int64))
    line = graph.add("Cast", line, to=tensor_type(eqn.params["dtype"]))
    aligned = [size if place == axis else 1 for place, size in enumerate(shape)]
    return graph.add("Expand", graph.add("Reshape", line, graph.shape(aligned)), graph.shape(shape))


def _transpose(graph, eqn, x):
    return graph.add("Transpose", x, perm=list(eqn.params["permutation"]))


def _concatenate(graph, eqn, *parts):
    return graph.add("Concat", *parts, axis=eqn.params["dimension"])


def _stack(graph, eqn, *parts):
    axis = eqn.params["axis"]
    return graph.add(
        "Concat", *(graph.add("Unsqueeze", x, _ints([axis])) for x in parts), axis=axis
    )


def _unstack(graph, eqn, x):
    axis, count = eqn.params["axis"], len(eqn.outvars)
    return [graph.add("Gather", x, np.asarray(i, np.int64), axis=axis) for i in range(count)]


def _slice(graph, eqn, x):
    starts, strides = eqn.params["start_indices"], eqn.params["strides"]
    axes = _ints(range(len(starts)))
    steps = _ints(strides or [1] * len(starts))
    ends = graph.shape(eqn.params["limit_indices"])
    return graph.add("Slice", x, graph.shape(starts), ends, axes, steps)


def _reverse(graph, eqn, x):
    axes = _ints(eqn.params["dimensions"])
    last, before_first = np.full_like(axes, -1), np.full_like(axes, np.iinfo(np.int64).min)
    return graph.add("Slice", x, last, before_first, axes, last)


def _product(graph, eqn, x, y):
    (contracted_x, contracted_y), (batch_x, batch_y) = eqn.params["dimension_numbers"]
    letters = iter(string.ascii_lowercase)
    named_x = [next(letters) for _ in eqn.invars[0].aval.shape]
    shared = dict(zip((*contracted_y, *batch_y), (*contracted_x, *batch_x), strict=True))
    rank_y = len(eqn.invars[1].aval.shape)
    named_y = [named_x[shared[i]] if i in shared else next(letters) for i in range(rank_y)]
    result = [named_x[i] for i in batch_x]
    result += [n for i, n in enumerate(named_x) if i not in (*contracted_x, *batch_x)]
    result += [n for i, n in enumerate(named_y) if i not in shared]
    equation = f"{''.join(named_x)},{''.join(named_y)}->{''.join(result)}"
    return graph.add("Einsum", x, y, equation=equation)


def _convolution(graph, eqn, x, kernel):
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    nhwc = numbers.lhs_spec == numbers.out_spec == (0, 3, 1, 2)
    plain = set(params["lhs_dilation"]) == {1} and params["batch_group_count"] == 1
    _require(nhwc and numbers.rhs_spec == (3, 2, 0, 1) and plain, eqn)
    kernel = kernel.transpose(3, 2, 0, 1)  # weights are always known
    begin, end = zip(*params["padding"], strict=True)
    result = graph.add(
        "Conv",
        graph.add("Transpose", x, perm=TO_NCHW),
        kernel,
        strides=params["window_strides"],
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
        pads=begin + end,
    )
    return graph.add("Transpose", result, perm=TO_NHWC)


def _max_pool(graph, eqn, x):
    params = eqn.params
    window, strides = params["window_dimensions"], params["window_strides"]
    (first, *pads, last) = params["padding"]
    images = window[0] == window[3] == 1 and (*first, *last) == (0, 0, 0, 0)
    _require(len(window) == 4 and images and set(params["window_dilation"]) == {1}, eqn)
    begin, end = zip(*pads, strict=True)
    result = graph.add(
        "MaxPool",
        graph.add("Transpose", x, perm=TO_NCHW),
        kernel_shape=window[1:3],
        strides=strides[1:3],
        pads=begin + end,
    )
    return graph.add("Transpose", result, perm=TO_NHWC)


def _top_k(graph, eqn, x):
    k, axis = _ints([eqn.params["k"]]), eqn.params["axis"]
    values, places = graph.add("TopK", x, k, axis=axis, outputs=2)
    return [values, graph.add("Cast", places, to=tensor_type(np.int32))]


def _sort(graph, eqn, key, *others):
    """Ascending by one key; TopK keeps equal keys in order."""
    _require(eqn.params["num_keys"] == 1, eqn)
    axis, aval = eqn.params["dimension"], eqn.invars[0].aval
    number = graph.add("Cast", key, to=tensor_type(np.int32)) if aval.dtype == np.bool_ else key
    length = graph.shape([aval.shape[axis]])
    _, places = graph.add("TopK", number, length, axis=axis, largest=0, outputs=2)
    return [graph.add("GatherElements", x, places, axis=axis) for x in (key, *others)]


def _gather(graph, eqn, x, places):
    """`x[places]` along one axis; under vmap each row of the batch has its own places."""
    if isinstance(places, np.ndarray) and places.ndim == 1:
        return _window(graph, eqn, x, places)
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    axis, batched = int(numbers.start_index_map[0]), numbers.operand_batching_dims
    pairs = zip(sizes, eqn.invars[0].aval.shape, strict=True)
    whole = all(size == full for i, (size, full) in enumerate(pairs) if i not in (*batched, axis))
    # In the output, the axes of the places are at the gathered axis.
    count = len(eqn.invars[1].aval.shape) - 1 - len(batched)
    taken = (*batched, *range(axis, axis + count))
    around = [i for i in range(len(eqn.outvars[0].aval.shape)) if i not in taken]
    _require(whole and len(numbers.start_index_map) == 1, eqn)
    _require(list(numbers.collapsed_slice_dims) == [axis], eqn)
    _require(list(numbers.offset_dims) == around, eqn)
    places = graph.add("Cast", places, to=tensor_type(np.int64))
    if batched:
        _require(list(batched) == [0], eqn)
        # GatherND gathers along the axis after the batch.
        order = list(range(len(eqn.invars[0].aval.shape)))
        order[1], order[axis] = axis, 1
        x = graph.add("Transpose", x, perm=order) if axis > 1 else x
        found = graph.add("GatherND", x, places, batch_dims=1)
        return graph.add("Transpose", found, perm=order) if axis > 1 else found
    return graph.add("Gather", x, graph.add("Squeeze", places, _ints([-1])), axis=axis)


def _window(graph, eqn, x, corner):
    """`x[..., 2:]` or `x[:, 3]`, which JAX writes as a gather if a size of x is symbolic."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    _require(list(numbers.offset_dims) == list(range(len(eqn.outvars[0].aval.shape))), eqn)
    starts = dict(zip(numbers.start_index_map, corner.tolist(), strict=True))
    starts = [starts.get(axis, 0) for axis in range(len(sizes))]
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    axes, dropped = _ints(range(len(sizes))), numbers.collapsed_slice_dims
    found = graph.add("Slice", x, graph.shape(starts), graph.shape(ends), axes)
    return graph.add("Squeeze", found, _ints(dropped)) if dropped else found


TRANSLATIONS: dict[str, Translation] = {
    "broadcast_in_dim": _broadcast,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _cast,
    "dot_general": _product,
    "gather": _gather,
    "integer_pow": _square,
    "iota": _iota,
    "ne": _not_equal,
    "reduce_and": _reduce_and,
    "reduce_window_max": _max_pool,
    "rem": _remainder,
    "reshape": _reshape,
    "rev": _reverse,
    "round": _round,
    "rsqrt": _reciprocal_root,
    "select_n": _select,
    "slice": _slice,
    "sort": _sort,
    "square": _square,
    "squeeze": _reshape,
    "stack": _stack,
    "top_k": _top_k,
    "transpose": _transpose,
    "unstack": _unstack,
}
