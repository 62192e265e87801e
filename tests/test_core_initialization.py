"""Initial values: the distributions of the modules, drawn with NumPy and compiled to nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from retinanet_jax.core.initialization import HE_NORMAL, XAVIER_UNIFORM, Initializer, KernelInit
from retinanet_jax.core.layers import Conv
from retinanet_jax.core.retinanet import ModelConfig, build_model


def variables_of(model, seed):
    initializer = Initializer(model)
    return jax.jit(initializer.variables)(initializer.draw(seed))


@pytest.fixture(scope="module")
def small():
    config = ModelConfig(
        backbone="resnet18",
        norm="batch",
        frozen_stages=0,
        backbone_levels=(3, 4),
        max_level=5,
        fpn_channels=32,
        head_channels=32,
        head_depth=1,
        prior=0.02,
        output_std=0.05,
    )
    return build_model(config, 3, 9)


def test_a_seed_gives_the_same_variables_again_and_another_seed_others(small):
    first, again, other = (variables_of(small, seed) for seed in (7, 7, 2**32 + 8))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernel = first["params"]["backbone"]["conv1"]["kernel"]
    assert not np.array_equal(kernel, other["params"]["backbone"]["conv1"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, other, variables_of(small, 8))  # 32 bits


def test_layers_of_one_shape_differ(small):
    layer = variables_of(small, 0)["params"]["backbone"]["layer1_0"]
    assert not np.array_equal(layer["conv1"]["kernel"], layer["conv2"]["kernel"])


def test_values_have_the_distributions_of_flax_init(small):
    """Kernels by their deviation; constants exactly."""
    images = jnp.zeros((1, 64, 64, 3))
    key = jax.random.key(0, impl="rbg")  # compiles faster than the default
    wanted = jax.jit(lambda: small.init(key, images, train=False))()

    def compare(path, theirs, ours):
        assert theirs.shape == ours.shape and theirs.dtype == ours.dtype
        if path[-1].key == "kernel":
            assert abs(ours.mean()) < 5 * ours.std() / np.sqrt(ours.size)
            np.testing.assert_allclose(ours.std(), theirs.std(), rtol=6 / np.sqrt(ours.size))
        else:
            np.testing.assert_array_equal(ours, theirs)

    jax.tree_util.tree_map_with_path(compare, wanted, variables_of(small, 0))


@pytest.mark.parametrize("way", ["numpy", "jax"])
def test_distributions_by_hand(way):
    shape = (3, 3, 64, 128)

    def draw(init):
        if way == "numpy":
            return init.draw(np.random.default_rng(0), shape)
        return np.asarray(init(jax.random.key(0), shape))

    he, xavier, fixed = map(draw, (HE_NORMAL, XAVIER_UNIFORM, KernelInit("normal", 0.01)))
    np.testing.assert_allclose(he.std(), np.sqrt(2 / (9 * 128)), rtol=0.01)
    assert np.abs(he).max() > 4 * he.std()  # not truncated
    limit = np.sqrt(3 / (9 * 64))
    np.testing.assert_allclose([xavier.min(), xavier.max()], [-limit, limit], rtol=0.01)
    np.testing.assert_allclose(xavier.std(), limit / np.sqrt(3), rtol=0.01)
    np.testing.assert_allclose(fixed.std(), 0.01, rtol=0.01)


def test_other_initializers_draw_with_jax():
    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(50, name="dense")(Conv(4, 3, name="conv")(x))

    one, other = (variables_of(Mixed(), seed)["params"] for seed in (0, 1))
    assert one["dense"]["kernel"].std() > 0
    assert not np.array_equal(one["dense"]["kernel"], other["dense"]["kernel"])


def test_nothing_random_is_compiled(small):
    initializer = Initializer(small)
    program = jax.jit(initializer.variables).lower(initializer.shapes()).as_text()
    assert "while" not in program and "erf" not in program and program.count("\n") < 300
