"""The float64 evaluation of float32 functions, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from double_precision import in_double


def harmonic(terms):
    """Sums that float32 gets wrong in the fifth digit."""
    looped = jax.lax.fori_loop(0, 5000, lambda n, total: total + terms / (n + 1.0), 0.0 * terms)
    scanned, each = jax.lax.scan(
        lambda total, n: (total + terms / n, total), 0.0 * terms, jnp.arange(1.0, 5001.0)
    )
    chosen = jax.lax.cond(terms.sum() > 0, lambda x: x / 3, lambda x: x, terms)
    peak = jax.lax.reduce(
        (terms, jnp.arange(len(terms))),
        (-jnp.inf, 0),
        lambda a, b: jax.tree.map(lambda x, y: jnp.where(a[0] < b[0], y, x), a, b),
        (0,),
    )
    return {"looped": looped, "scanned": scanned, "each": each[-1], "chosen": chosen, "peak": peak}


def test_loops_branches_and_reductions_are_in_float64():
    terms = np.array([1, 2**-30, -3])
    found = in_double(harmonic)(terms)
    wanted = terms * np.sum(1 / np.arange(1, 5001))
    np.testing.assert_allclose(found["looped"], wanted, rtol=1e-13)
    np.testing.assert_allclose(found["scanned"], wanted, rtol=1e-13)
    np.testing.assert_allclose(found["each"], wanted - terms / 5000, rtol=1e-13)
    np.testing.assert_array_equal(found["chosen"], terms)
    assert found["peak"] == (1.0, 0)
    single = jax.jit(harmonic)(jnp.float32(terms))
    assert np.abs(single["looped"] / wanted - 1).max() > 1e-7


def test_derivatives_and_whole_numbers():
    loss = jax.jit(lambda x, n: (jnp.exp(jax.nn.relu(x)) ** n).sum())
    value, gradient = in_double(jax.value_and_grad(loss))(np.array([0.1, -0.2]), np.int32(3))
    assert value.dtype == gradient.dtype == np.float64
    np.testing.assert_allclose(value, np.exp(0.3) + 1, rtol=1e-15)
    np.testing.assert_allclose(gradient, [3 * np.exp(0.3), 0], rtol=1e-15)
    assert jnp.ones(1).dtype == jnp.float32  # elsewhere
