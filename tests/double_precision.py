"""Evaluates functions of float32 arrays in float64.

A float32 gradient depends on the order in which the kernels of a processor add: a ReLU near zero
passes or blocks. In float64 a comparison with a float64 reference has no such noise.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import process_memory
from jax.extend import core

FAST = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
"""Against `quick.FLAGS`: convolutions in float64 take longer than their compilation."""


def in_double(fn: Callable) -> Callable:
    """fn with float64 in place of float32: its arguments, constants, operations and results.

    What is computed is the program that `jax.make_jaxpr` makes of fn for float32 arguments.
    Constants that fn rounds to float32 while it is traced stay rounded. Results are NumPy arrays.
    """

    def call(*arguments: Any) -> Any:
        program, shapes = jax.make_jaxpr(fn, return_shape=True)(*arguments)
        leaves = [widen(np.asarray(leaf)) for leaf in jax.tree.leaves(arguments)]
        with jax.enable_x64(True):
            lowered = jax.jit(lambda *leaves: evaluate(program, leaves)).lower(*leaves)
            compiled = lowered.compile(FAST)
            process_memory.trim()  # of the compiler
            results = compiled(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shapes), map(np.asarray, results))

    return call


def widen(value: Any) -> Any:
    """A float32 array as float64, others as they are."""
    return value.astype(np.float64) if value.dtype == np.float32 else value


def evaluate(program: core.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    """The results of a program for widened arguments."""
    values = dict(zip(program.jaxpr.constvars, map(widen, program.consts), strict=True))
    values |= dict(zip(program.jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        if not isinstance(atom, core.Literal):
            return values[atom]
        return widen(np.asarray(atom.val, atom.aval.dtype))

    for equation in program.jaxpr.eqns:
        results = apply(equation, [read(atom) for atom in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in program.jaxpr.outvars]


def apply(equation: core.JaxprEqn, operands: list[Any]) -> Sequence[Any]:
    """The results of one operation."""
    primitive, params = equation.primitive, equation.params
    if primitive.name in WITH_FUNCTIONS:
        return WITH_FUNCTIONS[primitive.name](params, operands)
    inner = [closed(value) for value in params.values() if is_program(value)]
    if inner:  # jit, checkpoint, custom derivatives
        (program,) = inner
        return evaluate(program, operands)
    wide = {
        name: np.dtype(np.float64) if is_float32(value) else value for name, value in params.items()
    }
    results = primitive.bind(*operands, **wide)
    return results if primitive.multiple_results else [results]


def is_program(value: Any) -> bool:
    return isinstance(value, (core.Jaxpr, core.ClosedJaxpr))


def closed(program: Any) -> core.ClosedJaxpr:
    return program if isinstance(program, core.ClosedJaxpr) else core.ClosedJaxpr(program, ())


def is_float32(value: Any) -> bool:
    return isinstance(value, (type, np.dtype)) and value == np.float32


def switch(params: dict[str, Any], operands: list[Any]) -> Sequence[Any]:
    branches = [lambda *values, b=branch: evaluate(b, values) for branch in params["branches"]]
    return jax.lax.switch(operands[0], branches, *operands[1:])


def while_loop(params: dict[str, Any], operands: list[Any]) -> Sequence[Any]:
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_condition, of_body, state = operands[:first], operands[first:second], operands[second:]
    return jax.lax.while_loop(
        lambda state: evaluate(params["cond_jaxpr"], [*of_condition, *state])[0],
        lambda state: evaluate(params["body_jaxpr"], [*of_body, *state]),
        state,
    )


def scan(params: dict[str, Any], operands: list[Any]) -> Sequence[Any]:
    first, carries = scan_counts(params)
    constants, carry = operands[:first], operands[first : first + carries]
    slices = operands[first + carries :]

    def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        results = evaluate(params["jaxpr"], [*constants, *carry, *slices])
        return results[:carries], results[carries:]

    carry, stacked = jax.lax.scan(
        body, carry, slices, length=params["length"], reverse=params["reverse"]
    )
    return [*carry, *stacked]


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """How many operands are constants, and how many the carry."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()  # JAX 0.12
    return len(list(constants.vals)), len(list(carry.vals))


def reduce(params: dict[str, Any], operands: list[Any]) -> Sequence[Any]:
    count = len(operands) // 2
    return jax.lax.reduce(
        operands[:count],
        operands[count:],
        lambda left, right: evaluate(params["jaxpr"], [*left, *right]),
        params["dimensions"],
    )


WITH_FUNCTIONS = {"cond": switch, "while": while_loop, "scan": scan, "reduce": reduce}
