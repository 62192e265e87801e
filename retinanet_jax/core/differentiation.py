"""Derivatives beyond the gradient: forward mode, Hessian-vector products, any order.

Convolutions on CPUs, convolutions with a float32 result, and the class loss of a step define custom
gradients (`jax.custom_vjp`), which are faster and need less memory than JAX's. JAX differentiates
such functions only in reverse mode. Within `any_derivative()`, the same functions use JAX's rules:

    with any_derivative():
        product = jax.jvp(jax.grad(loss), (params,), (vector,))[1]  # Hessian times vector

The values are equal up to rounding. Functions that are traced inside and outside are compiled
separately, so a training step keeps its own gradients.
"""

from contextlib import AbstractContextManager

import jax

# JAX keeps the value of a user context in the key of each compiled function.
_ANY_DERIVATIVE = jax.make_user_context(default_value=False)


def any_derivative() -> AbstractContextManager:
    """A context in which the network and its loss are differentiable in every mode and order."""
    return _ANY_DERIVATIVE(True)


def needs_any_derivative() -> bool:
    """Whether the current trace is inside `any_derivative()`."""
    return _ANY_DERIVATIVE.value
