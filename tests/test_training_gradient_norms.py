"""Norms of gradients, and the form in which a GPU's update reads them."""

import types

import jax
import numpy as np
import pytest

from retinanet_jax.training.gradient_norms import gradients_and_norms


def devices_of(platform):
    """Stands in for a mesh of one device."""
    return types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform=platform)]))


@pytest.fixture
def gradients():
    """7 + 4 numbers of a backbone, 3 of a head."""
    rng = np.random.default_rng(0)
    shapes = {"backbone": {"kernel": (1, 7), "bias": (4,)}, "head": {"bias": (3,)}}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(lambda s: rng.normal(size=s).astype(np.float32), shapes, is_leaf=is_shape)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("shard_state", [False, True])
def test_gradients_keep_their_values_on_every_platform(gradients, platform, shard_state):
    mesh = devices_of(platform)
    kept, norms = gradients_and_norms(gradients, mesh, shard_state=shard_state)
    jax.tree.map(np.testing.assert_array_equal, kept, gradients)
    for name, part in gradients.items():
        numbers = np.concatenate([x.ravel() for x in jax.tree.leaves(part)])
        np.testing.assert_allclose(norms[name], np.linalg.norm(numbers), rtol=1e-6)


def test_a_gpu_reads_one_vector(gradients):
    def barriers(platform, shard_state=False):
        call = lambda g: gradients_and_norms(g, devices_of(platform), shard_state=shard_state)  # noqa: E731
        equations = jax.make_jaxpr(call)(gradients).eqns
        return [e.invars[0].aval.shape for e in equations if "barrier" in e.primitive.name]

    assert barriers("gpu") == [(14,)]
    assert not barriers("cpu") and not barriers("tpu") and not barriers("gpu", shard_state=True)
