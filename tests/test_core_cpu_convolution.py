"""The CPU's own convolutions against XLA's in float64; all other platforms keep XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from retinanet_jax.core.cpu.convolution import convolve
from retinanet_jax.core.cpu.winograd import TILES_AT_ONCE

CASES = {  # name: [b h w c], kernel size, d, stride, groups
    "winograd, even": ((2, 16, 16, 128), 3, 128, 1, 1),
    "winograd, odd": ((1, 17, 33, 128), 3, 130, 1, 1),
    "winograd, bands of which the last is short": ((2, 26, 35, 128), 3, 128, 1, 1),
    "winograd, one pixel high": ((5, 1, 60, 128), 3, 128, 1, 1),
    "winograd, wider than a band": ((1, 4, 2 * TILES_AT_ONCE + 3, 128), 3, 128, 1, 1),
    "winograd, 64 channels": ((1, 33, 32, 64), 3, 64, 1, 1),
    "winograd, too few tiles of 4x4": ((1, 16, 17, 256), 3, 256, 1, 1),
    "few channels": ((1, 16, 16, 128), 3, 36, 1, 1),
    "few tiles": ((1, 3, 3, 128), 3, 128, 1, 1),
    "no images": ((0, 16, 16, 128), 3, 128, 1, 1),
    "3x3, stride 2": ((1, 17, 16, 128), 3, 128, 2, 1),
    "3x3, groups": ((1, 16, 16, 256), 3, 256, 1, 2),
    "3x3, 32 groups": ((2, 9, 8, 128), 3, 128, 1, 32),
    "3x3, 32 groups, stride 2": ((1, 17, 16, 64), 3, 128, 2, 32),
    "3x3, 6 groups of 3 channels": ((1, 5, 6, 18), 3, 12, 1, 6),
    "3x3, 5 groups of 8 channels": ((1, 5, 6, 40), 3, 40, 1, 5),
    "1x1": ((2, 7, 6, 5), 1, 8, 1, 1),
    "1x1, stride 2": ((2, 7, 6, 5), 1, 8, 2, 1),
    "1x1, groups": ((2, 7, 6, 6), 1, 8, 1, 2),
    "7x7, stride 2": ((1, 19, 22, 3), 7, 8, 2, 1),
}


def drawn(name):
    """x, kernel and the gradient of their convolution, float32; stride and groups."""
    shape, size, d, stride, groups = CASES[name]
    rng = np.random.default_rng(0)
    sides = (-(-side // stride) for side in shape[1:3])
    shapes = shape, (size, size, shape[3] // groups, d), (shape[0], *sides, d)
    arrays = [jnp.asarray(rng.standard_normal(each), jnp.float32) for each in shapes]
    return arrays, {"stride": stride, "groups": groups}


def result_and_gradients(function, x, kernel, gradient):
    """As one program."""

    def all_three(x, kernel, gradient):
        y, backward = jax.vjp(function, x, kernel)
        return y, *backward(gradient)

    return jax.jit(all_three)(x, kernel, gradient)


def plain(x, kernel, *, stride, groups):
    around = (kernel.shape[0] // 2,) * 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (around, around),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize("name", CASES)
def test_result_and_gradients_are_those_of_the_convolution(name):
    arrays, options = drawn(name)
    found = result_and_gradients(functools.partial(convolve, **options), *arrays)
    with jax.enable_x64(True):
        exact = result_and_gradients(
            functools.partial(plain, **options), *(a.astype(jnp.float64) for a in arrays)
        )
    # The result may be that of tiles of 4x4.
    for ours, wanted, most in zip(found, exact, (5e-6, 3e-6, 3e-6), strict=True):
        assert ours.dtype == jnp.float32
        largest = np.abs(wanted).max(initial=0)
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=most * largest)


def test_bfloat16_stays_bfloat16():
    arrays, options = drawn("winograd, even")
    arrays = [jnp.asarray(a, jnp.bfloat16) for a in arrays]
    found, wanted = (
        result_and_gradients(functools.partial(function, **options), *arrays)
        for function in (convolve, plain)
    )
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["winograd, even", "1x1", "1x1, stride 2", "3x3, 32 groups"])
def test_gpus_and_tpus_get_plain_convolutions(name, platform):
    """One for the result, two for the gradients, with the same attributes as without us."""
    (x, kernel, gradient), options = drawn(name)

    def convolutions(function, platform):
        function = functools.partial(function, **options)

        def all_three(x, kernel, gradient):
            y, backward = jax.vjp(function, x, kernel)
            return y, *backward(gradient)

        traced = jax.jit(all_three).trace(x, kernel, gradient)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        lines = (line for line in text.splitlines() if "stablehlo.convolution" in line)
        return sorted(line.partition("dim_numbers")[2] for line in lines)

    assert len(convolutions(plain, platform)) == 3
    assert convolutions(convolve, platform) == convolutions(plain, platform)
    on_cpu = convolutions(convolve, "cpu")
    if options["groups"] == 1:
        assert on_cpu == []
    else:
        assert on_cpu != convolutions(plain, "cpu")
        assert all("feature_group_count = 1 :" in attributes for attributes in on_cpu)


@pytest.mark.parametrize("name", ["winograd, even", "1x1"])
def test_exports_for_any_batch_and_for_several_platforms(name):
    (x, kernel, _), options = drawn(name)
    function = jax.jit(functools.partial(convolve, **options))
    wanted = plain(x, kernel, **options)
    (batch,) = jax.export.symbolic_shape("b")
    for size in (len(x), batch):
        shape = jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
        exported = jax.export.export(function, platforms=["cpu", "cuda"])(shape, kernel)
        np.testing.assert_allclose(exported.call(x, kernel), wanted, rtol=0, atol=1e-3)


def test_maps_over_examples():
    (x, kernel, _), options = drawn("winograd, even")
    stacked = jnp.stack([x, 2 * x])
    found = jax.vmap(functools.partial(convolve, **options), (0, None))(stacked, kernel)
    wanted = plain(x, kernel, **options)
    np.testing.assert_allclose(found, jnp.stack([wanted, 2 * wanted]), rtol=0, atol=1e-3)


def test_layers_occupy_no_more_memory_than_plain_ones():
    """What a layer adds: XLA lays out early what does not depend on the layer before."""
    (x, kernel, _), options = drawn("winograd, even")

    def temporary(function, layers):
        def loss(kernels):
            y = x
            for each in kernels:
                y = jax.nn.relu(function(y, each, **options))
            return y.sum()

        compiled = jax.jit(jax.grad(loss)).lower([kernel] * layers).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    ours, theirs = (temporary(each, 7) - temporary(each, 3) for each in (convolve, plain))
    assert ours < 1.2 * theirs


@pytest.mark.parametrize("name", ["few channels", "3x3, stride 2", "7x7, stride 2"])
def test_gradients_are_fast_in_loops_too(name):
    """In loops XLA runs only convolutions in this order by Eigen, and others number by number."""
    arrays, options = drawn(name)

    def part(_, arrays):
        x, kernel, gradient = arrays
        return None, jax.vjp(functools.partial(convolve, **options), x, kernel)[1](gradient)

    loop = jax.jit(lambda arrays: lax.scan(part, None, arrays))
    compiled = loop.lower(jax.tree.map(lambda x: jnp.stack([x, x]), arrays)).compile().as_text()
    lines = [line for line in compiled.splitlines() if " convolution(" in line]
    assert len(lines) == 2
    for line in lines:
        assert "dim_labels=b01f_01io->b01f" in line and "rhs_reversal" not in line
